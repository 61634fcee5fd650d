"""Our networks, of the published sizes; memory is kept, as the command line does, unless told not to."""

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


def calculator(name: str, *, compile_it: bool = False, keep: bool = True, memory_limit: float | None = None) -> Any:
    if keep:
        keep_memory()
    network = build_model(name, ELEMENTS)
    return PretrainedMLIP(network, dtype="float32", compile=compile_it, memory_limit=memory_limit)


def trainer(frames: list[Atoms], name: str, *, compile_it: bool = False) -> Callable[[], None]:
    keep_memory()
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
