"""Crystal graph convolutional neural network.

Xie and Grossman, Phys. Rev. Lett. 120, 145301 (2018), equation 5:

    v_i <- v_i + sum_j sigma(z_ij W_f + b_f) * g(z_ij W_s + b_s),   z_ij = v_i (+) v_j (+) u_ij

with v the features of atoms, u the Gaussian expansion of the distance, sigma a sigmoid gate. What differs, so that it
is a potential: every message carries an envelope that takes it smoothly to zero at the cutoff; layer normalisation of v
replaces batch normalisation, which would make an energy depend on the rest of its batch; g is SiLU, for smooth forces;
the energy is a sum of atomic energies, where the original pools features first. W z is computed as the sum of three
products, of which the two with v are made once per atom and gathered: the same algebra for a fraction of the work.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import silu

from pretrain_mlip.potentials.ghosts import of_owners
from pretrain_mlip.potentials.networks.base import Network, NetworkSettings
from pretrain_mlip.potentials.networks.bases import GaussianBasis, polynomial_envelope
from pretrain_mlip.potentials.networks.edges import Edges


class CGCNNSettings(NetworkSettings):
    """Hyperparameters of CGCNN."""

    width: int = Field(default=64, ge=1, description="features per atom")
    convolutions: int = Field(default=3, ge=1, description="number of convolutions")
    gaussians: int = Field(default=41, ge=2, description="size of the distance expansion")
    readout_width: int = Field(default=64, ge=1, description="width of the hidden layer of the readout")


class CGCNN(Network):
    """Gated graph convolutions over distances."""

    kind = "cgcnn"
    settings_class = CGCNNSettings
    learning_rate = 1e-2
    finetuning_rate = 5e-3
    settings: CGCNNSettings

    def __init__(self, elements: Sequence[str], settings: CGCNNSettings) -> None:
        super().__init__(elements, settings)
        width = settings.width
        self.embedding = nn.Embedding(len(self.elements), width)
        self.basis = GaussianBasis(0.0, settings.cutoff, settings.gaussians)
        self.convolutions = nn.ModuleList(_Convolution(width, settings.gaussians) for _ in range(settings.convolutions))
        self.hidden = nn.Linear(width, settings.readout_width)
        self.output = nn.Linear(settings.readout_width, 1)

    def node_energies(self, types: Tensor, edges: Edges) -> Tensor:
        basis = self.basis(edges.distances)  # (E, K)
        envelope = (polynomial_envelope(edges.distances, self.cutoff) * self.average_neighbors.rsqrt())[:, None]
        nodes = self.embedding(types)  # (N, F)
        for number, convolution in enumerate(self.convolutions):
            nodes = convolution(of_owners(nodes) if number else nodes, edges, basis, envelope)
        return self.output(silu(self.hidden(nodes))).squeeze(1)  # (N,)

    def floats_per_edge(self) -> int:
        return self.settings.convolutions * 14 * self.settings.width + 2 * self.settings.gaussians

    def reset_output(self) -> None:
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)


class _Convolution(nn.Module):
    def __init__(self, width: int, edge_width: int) -> None:
        super().__init__()
        self.normalise = nn.LayerNorm(width)
        self.of_centre = nn.Linear(width, 2 * width)
        self.of_neighbour = nn.Linear(width, 2 * width, bias=False)
        self.of_edge = nn.Linear(edge_width, 2 * width, bias=False)

    def forward(self, nodes: Tensor, edges: Edges, basis: Tensor, envelope: Tensor) -> Tensor:
        normal = self.normalise(nodes)
        _, (total,) = edges.exchange(
            self._message, (basis, envelope), (self.of_centre(normal),), (self.of_neighbour(normal),)
        )
        return nodes + total

    def _message(
        self, basis: Tensor, envelope: Tensor, centre: Tensor, neighbour: Tensor
    ) -> tuple[tuple[()], tuple[Tensor]]:
        gate, core = (self.of_edge(basis) + centre + neighbour).chunk(2, dim=1)  # (E, F) each
        return (), (torch.sigmoid(gate) * silu(core) * envelope,)
