"""Several potentials that act as one: their mean, and how far they are apart."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch_geometric.data import Data

from pretrain_mlip import keys
from pretrain_mlip.errors import InputError
from pretrain_mlip.potentials.base import Composition, Potential

SPREADS = {keys.ENERGY: keys.ENERGY_STD, keys.FORCES: keys.FORCES_STD}


class Ensemble(Composition):
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
        super().__init__(members)
        self.fades = all(member.fades for member in members)

    def atomic_energies(self, types: Tensor, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        members = self.potentials()
        if any(member.cutoff != self.cutoff for member in members):
            raise InputError("members of an ensemble that differ in their cutoff cannot be traced or exported as one")
        energies = [member.atomic_energies(types, edge_index, edge_vectors) for member in members]
        return torch.stack([found.to(torch.float64) for found in energies]).mean(0)

    def forward(
        self, graph: Data, *, forces: bool = True, stress: bool = True, create_graph: bool = False
    ) -> dict[str, Tensor]:
        found = self.outputs(graph, forces=forces, stress=stress, create_graph=create_graph)
        every = {name: torch.stack([one[name] for one in found]) for name in found[0] if name not in SPREADS.values()}
        result = {name: values.mean(0) for name, values in every.items()}
        return result | {spread: every[name].std(0) for name, spread in SPREADS.items() if name in every}
