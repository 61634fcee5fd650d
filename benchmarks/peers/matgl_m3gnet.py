"""MatGL's M3GNet: pip install torch==2.13.0 matgl==4.1.2."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from ase import Atoms
from matgl.apps.pes import Potential
from matgl.ext.ase import Atoms2Graph, PESCalculator
from matgl.graph.data import collate_fn_pes
from matgl.models import M3GNet
from matgl.utils.training import PotentialLightningModule

ELEMENTS = ("Si", "O", "P")


def calculator() -> Any:
    return PESCalculator(Potential(M3GNet(element_types=ELEMENTS, is_intensive=False)).eval(), stress_unit="eV/A3")


def trainer(frames: list[Atoms]) -> Callable[[], None]:
    convert = Atoms2Graph(ELEMENTS, 5.0)
    items = []
    for atoms in frames:
        graph, lattice, state = convert.get_graph(atoms)
        labels = {
            "energies": atoms.info["energy"],
            "forces": torch.tensor(atoms.arrays["forces"], dtype=torch.float32),
            "stresses": torch.zeros(3, 3),
        }
        items.append((graph, lattice, torch.tensor(state), labels))
    module = PotentialLightningModule(
        model=M3GNet(element_types=ELEMENTS, is_intensive=False), stress_weight=0.0, lr=1e-3
    )
    module.model.calc_stresses = False  # as ours: energies and forces alone
    module.train()
    batch = partial(collate_fn_pes, include_stress=True)(items)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)

    def step() -> None:
        results, _ = module.step(batch)
        optimizer.zero_grad()
        results["Total_Loss"].backward()
        optimizer.step()

    return step
