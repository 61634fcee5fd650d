"""A sum over pairs of a small perceptron of the distance: the smallest network that is a potential."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from pretrain_mlip.potentials.networks.base import Network, NetworkSettings
from pretrain_mlip.potentials.networks.bases import GaussianBasis, polynomial_envelope
from pretrain_mlip.potentials.networks.edges import Edges


class PairNetworkSettings(NetworkSettings):
    """Hyperparameters of the pair network."""

    width: int = Field(default=32, ge=1, description="width of the hidden layer")
    gaussians: int = Field(default=32, ge=2, description="size of the distance expansion")


class PairNetwork(Network):
    """Atomic energies from the distances to the neighbours and the elements of both ends."""

    kind = "pair"
    settings_class = PairNetworkSettings
    settings: PairNetworkSettings

    def __init__(self, elements: Sequence[str], settings: PairNetworkSettings) -> None:
        super().__init__(elements, settings)
        self.basis = GaussianBasis(0.0, settings.cutoff, settings.gaussians)
        self.hidden = nn.Linear(settings.gaussians, settings.width)
        self.of_pair = nn.Embedding(len(self.elements) ** 2, settings.width)
        self.output = nn.Linear(settings.width, 1, bias=False)

    def node_energies(self, types: Tensor, edges: Edges) -> Tensor:
        kind = types[edges.centre] * len(self.elements) + types[edges.neighbour]  # (E,)
        hidden = torch.tanh(self.hidden(self.basis(edges.distances)) + self.of_pair(kind))  # (E, F)
        envelope = polynomial_envelope(edges.distances, self.cutoff) * self.average_neighbors.rsqrt()  # (E,)
        return edges.total(self.output(hidden).squeeze(1) * envelope)  # (N,)

    def floats_per_edge(self) -> int:
        return 5 * self.settings.width

    def reset_output(self) -> None:
        nn.init.zeros_(self.output.weight)
