"""Several potentials that act as one: their mean, and how far they are apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from pretrain_mlip import keys
from pretrain_mlip.errors import InputError
from pretrain_mlip.graphs.graph import within
from pretrain_mlip.potentials.base import Potential, Products

SPREADS = {keys.ENERGY: keys.ENERGY_STD, keys.FORCES: keys.FORCES_STD}


class Ensemble(Potential):
    """The mean of several potentials of the same elements; forces are the gradient of the mean energy.

    ``forward`` also returns energy_std (B,) and forces_std (N, 3), standard deviations among the members with one
    degree of freedom taken off: a sign of structures unlike those that were trained on, not an error bar.
    """

    kind = "ensemble"
    spread = True

    def __init__(self, members: Sequence[Potential]) -> None:
        """Put potentials together.

        Raises:
            InputError: there are less than two, or they differ in elements.
        """
        if len(members) < 2:
            raise InputError(f"an ensemble needs at least two potentials, not {len(members)}")
        if any(member.elements != members[0].elements for member in members):
            shown = "; ".join(", ".join(member.elements) for member in members)
            raise InputError(f"an ensemble needs potentials of the same elements in the same order, not {shown}")
        super().__init__(members[0].elements, max(member.cutoff for member in members))
        self.members = nn.ModuleList(members)
        self.fades = all(member.fades for member in members)

    def config(self) -> dict[str, Any]:
        return {"kind": self.kind, "members": [member.config() for member in self.potentials()]}

    def potentials(self) -> list[Potential]:
        """The members."""
        return [member for member in self.members if isinstance(member, Potential)]

    def atomic_energies(self, types: Tensor, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        members = self.potentials()
        if any(member.cutoff != self.cutoff for member in members):
            raise InputError("members of an ensemble that differ in their cutoff cannot be traced or exported as one")
        energies = [member.atomic_energies(types, edge_index, edge_vectors) for member in members]
        return torch.stack([found.to(torch.float64) for found in energies]).mean(0)

    def forward(
        self, graph: Data, *, forces: bool = True, stress: bool = True, create_graph: bool = False
    ) -> dict[str, Tensor]:
        found = []
        for member in self.potentials():
            edges = graph if member.cutoff >= self.cutoff else within(graph, member.cutoff)
            found.append(member(edges, forces=forces, stress=stress, create_graph=create_graph))
        every = {name: torch.stack([one[name] for one in found]) for name in found[0]}
        result = {name: values.mean(0) for name, values in every.items()}
        return result | {spread: every[name].std(0) for name, spread in SPREADS.items() if name in every}

    def set_dtype(self, dtype: torch.dtype) -> None:
        for member in self.potentials():
            member.set_dtype(dtype)

    def set_memory_limit(self, limit: float) -> None:
        for member in self.potentials():
            member.set_memory_limit(limit)

    def set_products(self, products: Products) -> None:
        for member in self.potentials():
            member.set_products(products)
