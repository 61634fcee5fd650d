"""The equivariant transformer of torchmd-net.

pip install torch==2.13.0 ase warp-lang lightning torch_geometric h5py tqdm pyyaml, then
pip install --no-deps torchmd-net==3.1.0.

Its own ASE calculator wants a checkpoint file; this one does the same with a model. It gives no stress. Cells must be
lower triangular and at least 10 Å wide, or it loses pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from ase import Atoms
from ase.calculators.calculator import Calculator
from torchmdnet.models.model import create_model

OPTIONS: dict[str, Any] = {
    "model": "equivariant-transformer",
    "embedding_dimension": 128,
    "num_layers": 6,
    "num_rbf": 64,
    "rbf_type": "expnorm",
    "trainable_rbf": False,
    "activation": "silu",
    "attn_activation": "silu",
    "neighbor_embedding": True,
    "num_heads": 8,
    "distance_influence": "both",
    "cutoff_lower": 0.0,
    "cutoff_upper": 5.0,
    "max_z": 100,
    "max_num_neighbors": 64,
    "aggr": "add",
    "derivative": True,
    "reduce_op": "sum",
    "output_model": "Scalar",
    "prior_model": None,
    "precision": 32,
    "atom_filter": -1,
    "box_vecs": None,
    "vector_cutoff": True,
}


def calculator() -> Any:
    model = create_model(dict(OPTIONS)).eval().requires_grad_(False)  # noqa: FBT003

    class Wrapped(Calculator):
        implemented_properties = ["energy", "forces"]  # noqa: RUF012

        def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = None) -> None:
            super().calculate(atoms, properties, system_changes or [])
            positions = torch.tensor(atoms.get_positions(wrap=True), dtype=torch.float32)
            box = torch.tensor(atoms.cell.array, dtype=torch.float32)
            energy, forces = model(torch.tensor(atoms.numbers), positions, box=box)
            self.results = {"energy": float(energy), "forces": forces.detach().numpy()}

    return Wrapped()


def trainer(frames: list[Atoms]) -> Callable[[], None]:
    model = create_model(dict(OPTIONS)).train()
    numbers = torch.cat([torch.tensor(atoms.numbers) for atoms in frames])
    positions = torch.cat([torch.tensor(atoms.get_positions(wrap=True), dtype=torch.float32) for atoms in frames])
    boxes = torch.stack([torch.tensor(atoms.cell.array, dtype=torch.float32) for atoms in frames])
    batch = torch.arange(len(frames)).repeat_interleave(torch.tensor([len(atoms) for atoms in frames]))
    energies = torch.tensor([[atoms.info["energy"]] for atoms in frames])
    forces = torch.cat([torch.tensor(atoms.arrays["forces"], dtype=torch.float32) for atoms in frames])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step() -> None:
        energy, force = model(numbers, positions.clone(), batch=batch, box=boxes)
        loss = (energy - energies).square().mean() + 10 * (force - forces).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step
