"""Our networks, of the published sizes; memory is kept, as the command line does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from ase import Atoms

from pretrain_mlip import PretrainedMLIP, build_model, keep_memory
from pretrain_mlip.graphs.graph import make_batch, make_graph
from pretrain_mlip.potentials.base import Potential
from pretrain_mlip.potentials.compiled import compiled

ELEMENTS = ["Si", "O", "P"]
keep_memory()


def calculator(name: str, *, compile_it: bool = False) -> Any:
    options: dict[str, Any] = {"compile": True} if compile_it else {}
    return PretrainedMLIP(build_model(name, ELEMENTS), dtype="float32", **options)


def trainer(frames: list[Atoms], name: str, *, compile_it: bool = False) -> Callable[[], None]:
    network = build_model(name, ELEMENTS)
    potential: Potential = network
    if compile_it:
        potential = compiled(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    batch = make_batch([make_graph(atoms, network.cutoff) for atoms in frames])
    energies = torch.tensor([atoms.info["energy"] for atoms in frames])
    forces = torch.cat([torch.from_numpy(atoms.arrays["forces"]) for atoms in frames])

    def step() -> None:
        found = potential(batch, stress=False, create_graph=True)
        loss = (found["energy"] - energies).square().mean() + 10 * (found["forces"] - forces).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step
