"""M3GNet: message passing with three-body interactions.

Chen and Ong, Nature Computational Science 2, 718 (2022); the reference implementation is that of MatGL. With v the
features of atoms, e those of edges, i the centre of an edge and j its neighbour, each block computes (equations 2 to 5)

    t_ij = sum_{k != j} j_l(z_ln r_ik / rc) Y_l0(theta_jik) f_c(r_ij) f_c(r_ik) * sigma(W v_k + b)
    e_ij <- e_ij + g(W1 t_ij) * sigma(W2 t_ij)
    e_ij <- e_ij + phi_e(v_i (+) v_j (+) e_ij) * (W_e h(r_ij))
    v_i <- v_i + sum_j phi_v(v_i (+) v_j (+) e_ij) * (W_v h(r_ij))

where phi are gated perceptrons, h is the radial basis, f_c a polynomial that ends at the three-body cutoff, g is SiLU
and sigma the sigmoid. The energy is a sum of gated perceptrons of v.

No triplet is ever listed. By the addition theorem Y_l0(theta) is a product of harmonics of the two directions, so that

    t_ij = f_c(r_ij) sum_m Y_lm(r_ij) A_i,lnm - (what k = j adds),   A_i,lnm = sum_k a_ik,ln Y_lm(r_ik),

the same numbers for a cost that grows with the number of neighbours and not with its square. The first layers of phi
are applied to v_i, v_j and e_ij apart: those of atoms once per atom.

What differs from the reference, and can be switched back: ``envelope`` multiplies h by a polynomial that is smooth at
the cutoff, where the functions of ``basis="bessel"`` have a slope, so that forces would jump. What differs by
less than rounding: the reference moves cosines by 1e-7 away from 1 and -1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import silu

from pretrain_mlip.potentials.ghosts import of_owners
from pretrain_mlip.potentials.networks.base import Network, NetworkSettings
from pretrain_mlip.potentials.networks.bases import (
    Constants,
    SmoothBesselBasis,
    SphericalBesselBasis,
    polynomial_envelope,
    spherical_harmonics,
)
from pretrain_mlip.potentials.networks.edges import Edges


class M3GNetSettings(NetworkSettings):
    """Hyperparameters of M3GNet."""

    three_body_cutoff: float = Field(default=4.0, gt=0, description="cutoff of three-body interactions, Å")
    blocks: int = Field(default=3, ge=1, description="number of blocks")
    width: int = Field(default=64, ge=1, description="features per atom")
    edge_width: int = Field(default=64, ge=1, description="features per edge")
    hidden_width: int = Field(default=64, ge=1, description="width of the hidden layers of gated perceptrons")
    radial: int = Field(default=3, ge=1, le=16, description="radial functions for each degree")
    angular: int = Field(default=3, ge=1, le=8, description="degrees of the angular functions, from 0 on")
    basis: Literal["bessel", "smooth"] = Field(
        default="bessel", description="spherical Bessel functions, or combinations with no slope at the cutoff"
    )
    envelope: bool = Field(default=True, description="take messages smoothly to zero at the cutoff")


class M3GNet(Network):
    """Messages over edges whose features know the angles to other edges."""

    kind = "m3gnet"
    settings_class = M3GNetSettings
    learning_rate = 5e-3
    finetuning_rate = 5e-3
    settings: M3GNetSettings

    def __init__(self, elements: Sequence[str], settings: M3GNetSettings) -> None:
        super().__init__(elements, settings)
        of_angles = settings.radial * settings.angular
        if settings.basis == "smooth":
            self.basis: nn.Module = SmoothBesselBasis(settings.cutoff, settings.radial)
            self.three_body_basis: nn.Module = SmoothBesselBasis(settings.cutoff, of_angles)
            size = settings.radial
        else:
            self.basis = self.three_body_basis = SphericalBesselBasis(
                settings.cutoff, settings.radial, settings.angular
            )
            size = of_angles
        self.angles = _Angles(settings.radial, settings.angular)
        self.embedding = nn.Embedding(len(self.elements), settings.width)
        self.edge_embedding = nn.Linear(size, settings.edge_width)
        self.blocks = nn.ModuleList(_Block(settings, size, self.angles) for _ in range(settings.blocks))
        hidden = settings.hidden_width
        self.readout = _GatedPerceptron([settings.width, settings.width, hidden, hidden, 1])

    def node_energies(self, types: Tensor, edges: Edges) -> Tensor:
        distances, reach = edges.distances, self.settings.three_body_cutoff
        if self.settings.envelope:  # without one, what ends the three-body part is the slope of its basis
            reach = min(reach, self.cutoff)
        basis = self.basis(distances)  # (E, K)
        features = silu(self.edge_embedding(basis))  # (E, G)
        fade = polynomial_envelope(distances, reach, power=3)[:, None]  # (E, 1)
        three_body = basis if self.three_body_basis is self.basis else self.three_body_basis(distances)
        harmonics = self.angles.harmonics(edges.vectors / distances[:, None])  # (E, M)
        if self.settings.envelope:
            basis = basis * polynomial_envelope(distances, self.cutoff)[:, None]
        nodes = self.embedding(types)  # (N, F)
        geometry = (basis, basis * self.average_neighbors.rsqrt(), three_body * fade, fade, harmonics)
        for number, block in enumerate(self.blocks):
            nodes, features = block(of_owners(nodes) if number else nodes, features, edges, geometry)
        return self.readout(nodes, nodes).squeeze(1)  # (N,)

    def floats_per_edge(self) -> int:
        settings = self.settings
        perceptrons = 20 * settings.hidden_width + 8 * settings.edge_width + 5 * settings.width
        return settings.blocks * (perceptrons + 4 * self.angles.size)

    def reset_output(self) -> None:
        self.readout.reset()


class _Angles(nn.Module):
    """Where sums over triplets become products: columns (l, n, m) from columns (l, n) and (l, m), and sums over m.

    Matrices of zeros and ones do it, because products with small matrices are fast and reductions over rows of three
    are not.
    """

    spread_radial: Tensor
    spread_harmonics: Tensor

    def __init__(self, radial: int, angular: int) -> None:
        super().__init__()
        self.angular = angular
        columns = [
            (degree * radial + n, degree**2 + m)
            for degree in range(angular)
            for n in range(radial)
            for m in range(2 * degree + 1)
        ]
        self.size = len(columns)
        of_radial, of_harmonics = torch.tensor(columns).unbind(1)
        self.register_buffer("spread_radial", torch.eye(radial * angular)[:, of_radial], persistent=False)
        self.register_buffer("spread_harmonics", torch.eye(angular**2)[:, of_harmonics], persistent=False)
        # Y_l0 is sqrt((2l + 1) / 4 pi) P_l, and sums of products of our harmonics are P_l
        degrees = torch.arange(angular, dtype=torch.float64).repeat_interleave(radial)
        self.norms = _Norms(((2 * degrees + 1) / (4 * math.pi)).sqrt())

    def harmonics(self, directions: Tensor) -> Tensor:
        """(E, 3) unit vectors -> (E, M) harmonics, M the number of columns (l, n, m)."""
        return spherical_harmonics(directions, self.angular).t() @ self.spread_harmonics

    def density(self, radial: Tensor, harmonics: Tensor) -> Tensor:
        """What an edge adds to the density (E, M) around its centre, from its radial part (E, K) and its harmonics."""
        return (radial @ self.spread_radial) * harmonics

    def angular_sum(self, density: Tensor, radial: Tensor, harmonics: Tensor) -> Tensor:
        """(E, K) sums over the other edges of the centre of radial parts times Y_l0 of the angle between them.

        Args:
            density: (E, M) of the centre.
            radial: (E, K) of the edge itself, which the density counts too: its angle is zero, its P_l one.
            harmonics: (E, M) of the edge.
        """
        total = (self.spread_radial @ (density * harmonics).t()).t()
        return (total - radial) * self.norms.values.to(radial.dtype)


class _Norms(Constants):
    values: Tensor

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.register_buffer("values", values, persistent=False)


class _Block(nn.Module):
    def __init__(self, settings: M3GNetSettings, basis_size: int, angles: _Angles) -> None:
        super().__init__()
        width, edge_width, of_angles = settings.width, settings.edge_width, settings.radial * settings.angular
        self.angles = angles
        self.gate = nn.Linear(width, of_angles)
        self.three_body = _GatedPerceptron([of_angles, edge_width], bias=False, activate_last=True)
        self.edge_update = _EdgePerceptron(settings, edge_width)
        self.edge_weight = nn.Linear(basis_size, edge_width, bias=False)
        self.node_update = _EdgePerceptron(settings, width)
        self.node_weight = nn.Linear(basis_size, width, bias=False)

    def forward(
        self, nodes: Tensor, features: Tensor, edges: Edges, geometry: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor]:
        _, _, three_body, _, harmonics = geometry
        gate = torch.sigmoid(self.gate(nodes))  # (N, K)
        _, (density,) = edges.exchange(self._density, (three_body, harmonics), (), (gate,))  # (N, M)
        (features,), (total,) = edges.exchange(
            self._message,
            (features, *geometry),
            (density, *self.edge_update.of_centres(nodes), *self.node_update.of_centres(nodes)),
            (gate, *self.edge_update.of_neighbours(nodes), *self.node_update.of_neighbours(nodes)),
        )
        return nodes + total, features

    def _density(self, three_body: Tensor, harmonics: Tensor, gate: Tensor) -> tuple[tuple[()], tuple[Tensor]]:
        return (), (self.angles.density(three_body * gate, harmonics),)

    def _message(
        self,
        features: Tensor,  # (E, G)
        basis: Tensor,  # (E, B)
        scaled_basis: Tensor,  # (E, B)
        three_body: Tensor,  # (E, K)
        fade: Tensor,  # (E, 1)
        harmonics: Tensor,  # (E, M)
        density: Tensor,  # (E, M)
        *of_atoms: Tensor,  # first layers, (E, H) each: four of the centre, the gate (E, K) and four of the neighbour
    ) -> tuple[tuple[Tensor], tuple[Tensor]]:
        of_centre, (gate, *of_neighbour) = of_atoms[:4], of_atoms[4:]
        triplets = self.angles.angular_sum(density, three_body * gate, harmonics) * fade  # (E, K)
        features = features + self.three_body(triplets, triplets)
        update = self.edge_update(features, of_centre[:2], of_neighbour[:2])
        features = torch.addcmul(features, update, self.edge_weight(basis))
        message = self.node_update(features, of_centre[2:], of_neighbour[2:]) * self.node_weight(scaled_basis)
        return (features,), (message,)


class _GatedPerceptron(nn.Module):
    """A perceptron times the sigmoid of another; SiLU between layers, and after the last where that is asked for."""

    def __init__(self, sizes: Sequence[int], *, bias: bool = True, activate_last: bool = False) -> None:
        super().__init__()
        self.core = nn.ModuleList(nn.Linear(a, b, bias=bias) for a, b in pairwise(sizes))
        self.gate = nn.ModuleList(nn.Linear(a, b, bias=bias) for a, b in pairwise(sizes))
        self.activate_last = activate_last

    def forward(self, core: Tensor, gate: Tensor) -> Tensor:
        """(X, in) values for the two perceptrons -> (X, out)."""
        for number, (core_layer, gate_layer) in enumerate(zip(self.core, self.gate, strict=True)):
            if number > 0:
                core, gate = silu(core), silu(gate)
            core, gate = core_layer(core), gate_layer(gate)
        return (silu(core) if self.activate_last else core) * torch.sigmoid(gate)

    def reset(self) -> None:
        """Give zero from now on."""
        last = self.core[-1]
        for parameter in last.parameters():
            nn.init.zeros_(parameter)


class _EdgePerceptron(nn.Module):
    """A gated perceptron of v_i (+) v_j (+) e_ij, whose first layer is applied to the three apart.

    Core and gate have matrices of their own: one of both would be taken apart after it, and put together again, by a
    copy of all edges, in the derivative.
    """

    def __init__(self, settings: M3GNetSettings, out: int) -> None:
        super().__init__()
        hidden = settings.hidden_width
        self.of_centre = nn.ModuleList(nn.Linear(settings.width, hidden) for _ in range(2))
        self.of_neighbour = nn.ModuleList(nn.Linear(settings.width, hidden, bias=False) for _ in range(2))
        self.of_edge = nn.ModuleList(nn.Linear(settings.edge_width, hidden, bias=False) for _ in range(2))
        self.rest = _GatedPerceptron([hidden, hidden, out], activate_last=True)

    def of_centres(self, nodes: Tensor) -> list[Tensor]:
        """What the centre adds to the first layers of core and gate, (N, H) each."""
        return [layer(nodes) for layer in self.of_centre]

    def of_neighbours(self, nodes: Tensor) -> list[Tensor]:
        """What the neighbour adds to the first layers of core and gate, (N, H) each."""
        return [layer(nodes) for layer in self.of_neighbour]

    def forward(self, features: Tensor, of_centre: Sequence[Tensor], of_neighbour: Sequence[Tensor]) -> Tensor:
        """(E, G) features and what atoms add to the first layers of core and gate, (E, H) each -> (E, out)."""
        # In place: most of the time of adding large tensors goes into getting memory for another one
        core, gate = (
            silu(layer(features).add_(centre).add_(neighbour))
            for layer, centre, neighbour in zip(self.of_edge, of_centre, of_neighbour, strict=True)
        )
        return self.rest(core, gate)
