"""Equivariant transformer of TorchMD-NET.

Thölke and De Fabritiis, Equivariant transformers for neural network based molecular potentials, ICLR 2022
(arXiv:2202.02541), section 3, as in version 3.1.0 of the authors' program. Atoms carry scalars x (F) and vectors v
(3, F). With f the distance expansion, C the envelope, n the unit vector from the centre i to the neighbour j, W and U
linear maps, x' the normalised x, and products that are element by element, one layer is

    a_ij = silu(sum over a head of (W_Q x'_i) (W_K x'_j) silu(W_DK f_ij))
    y_i  = sum_j C_ij a_ij (W_1 x'_j) silu(W_D1 f_ij)
    w_i  = sum_j C_ij (v_j (W_2 x'_j) silu(W_D2 f_ij) + n_ij (W_3 x'_j) silu(W_D3 f_ij))
    x_i <- x_i + (W_O2 y_i) <U_1 v_i, U_2 v_i> + W_O3 y_i,   v_i <- v_i + (W_O1 y_i) U_3 v_i + w_i

where j runs over the neighbours and over i itself, at distance 0 with C = 1 and n = 0, and <,> contracts directions.
The readout is two gated blocks (Schütt, Unke and Gastegger, arXiv:2102.03150). What differs, each with the setting or
constant that restores the original:

- The envelope is a polynomial with two continuous derivatives at the cutoff; that of the cosine jumps ("cosine").
- The readout takes |v| as sqrt(v² + s²) - s, because |v| has a cone at v = 0, where sites of high symmetry are: their
  forces would be undefined (``norm_softening=0``).
- Sums over neighbours are divided by the root of ``average_neighbors`` (1). The term of the atom itself is not: it is
  one term, however many neighbours there are.
- Every pair within the cutoff counts, periodic images of an atom too. The original needs a cell of at least twice the
  cutoff and takes the nearest image only.

v is zero before the first layer, which therefore has no terms with v. The term of the atom itself is computed per atom.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import silu

from pretrain_mlip.potentials.ghosts import of_owners
from pretrain_mlip.potentials.networks.attention_sums import BlockedSums, head_sums, over_heads, workspace
from pretrain_mlip.potentials.networks.base import Network, NetworkSettings
from pretrain_mlip.potentials.networks.bases import gaussian, polynomial_envelope
from pretrain_mlip.potentials.networks.edges import Edges


class TorchMDNetSettings(NetworkSettings):
    """Hyperparameters of the equivariant transformer."""

    width: int = Field(default=128, ge=2, description="features per atom, an even multiple of the heads")
    layers: int = Field(default=6, ge=1, description="number of attention layers")
    heads: int = Field(default=8, ge=1, description="attention heads of a layer")
    radial: int = Field(default=64, ge=2, description="size of the distance expansion")
    trainable_basis: bool = Field(default=False, description="train the centres and widths of the distance expansion")
    vector_cutoff: bool = Field(
        default=True, description="fade vectors at the cutoff too; without it energies jump where a neighbour leaves"
    )
    envelope: Literal["polynomial", "cosine"] = Field(
        default="polynomial", description="how messages fade; forces have a kink at the cutoff with 'cosine'"
    )
    norm_softening: float = Field(
        default=1e-2, ge=0, description="length below which norms of vector features are rounded off, 0 for a cone"
    )

    @model_validator(mode="after")
    def _even_heads(self) -> TorchMDNetSettings:
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"width {self.width} must be even and a multiple of heads, {self.heads}")
        return self


class ExpNormalBasis(nn.Module):
    """Gaussians in exp(-5 r / cutoff), as in PhysNet: exp(-beta_k (exp(-5 r / cutoff) - mu_k)²).

    Unke and Meuwly, J. Chem. Theory Comput. 15, 3678 (2019), equation 7, without its cutoff function.
    """

    centers: Tensor
    sharpness: Tensor

    def __init__(self, cutoff: float, size: int, *, trainable: bool = False) -> None:
        super().__init__()
        start = math.exp(-cutoff)
        self.decay = 5.0 / cutoff
        centers = torch.linspace(start, 1.0, size)
        sharpness = torch.full((size,), (2.0 / size * (1.0 - start)) ** -2)
        if trainable:
            self.centers, self.sharpness = nn.Parameter(centers), nn.Parameter(sharpness)
        else:
            self.register_buffer("centers", centers)
            self.register_buffer("sharpness", sharpness)

    def forward(self, distance: Tensor) -> Tensor:
        """(E,) Å -> (E, K)."""
        exponent = self.sharpness * (torch.exp(-self.decay * distance)[:, None] - self.centers).square()
        return gaussian(exponent)


class TorchMDNet(Network):
    """Attention over neighbours, on scalars and vectors."""

    kind = "torchmd_net"
    settings_class = TorchMDNetSettings
    learning_rate = 5e-3
    finetuning_rate = 5e-3
    settings: TorchMDNetSettings

    def __init__(self, elements: Sequence[str], settings: TorchMDNetSettings) -> None:
        super().__init__(elements, settings)
        width, radial = settings.width, settings.radial
        self.fades = settings.vector_cutoff
        self.embedding = nn.Embedding(len(self.elements), width)
        self.embedding_of_neighbours = nn.Embedding(len(self.elements), width)
        self.basis = ExpNormalBasis(settings.cutoff, radial, trainable=settings.trainable_basis)
        self.embedding_filter = _linear(radial, width)
        self.combine = _linear(2 * width, width)
        self.layers = nn.ModuleList(_Attention(settings, first=number == 0) for number in range(settings.layers))
        self.normalise = nn.LayerNorm(width)
        self.gate = _GatedBlock(width, width // 2, settings.norm_softening)
        self.norm_of = nn.Linear(width // 2, width // 2, bias=False)
        self.hidden = _linear(width, width // 2)
        self.output = _linear(width // 2, 1)
        nn.init.xavier_uniform_(self.norm_of.weight)

    def energies_and_gradient(
        self, types: Tensor, edge_index: Tensor, edge_vectors: Tensor, *, create_graph: bool = False
    ) -> tuple[Tensor, Tensor]:
        if create_graph or self.products != "full":
            return super().energies_and_gradient(types, edge_index, edge_vectors, create_graph=create_graph)
        count, (neighbour, centre) = edge_index.shape[1], edge_index
        with torch.enable_grad():
            vectors = edge_vectors.detach().requires_grad_(True)  # noqa: FBT003
            features = vectors.to(self.energy_scale.dtype)
            edges = Edges(neighbour, centre, features, types.shape[0], self.chunk(count))
            energies = self.energy_scale * self._node_energies(types, edges, workspace(features, self.settings.width))
            (gradient,) = torch.autograd.grad(energies.sum(), vectors)
        return energies.detach(), gradient

    def node_energies(self, types: Tensor, edges: Edges) -> Tensor:
        return self._node_energies(types, edges, None)

    def _node_energies(self, types: Tensor, edges: Edges, scratch: Tensor | None) -> Tensor:
        """With somewhere to work in only first derivatives by the edge vectors are right, and made by hand."""
        envelope = self._envelope(edges.distances)[:, None]  # (E, 1)
        basis = self.basis(edges.distances) * envelope  # (E, K)
        scale = self.average_neighbors.rsqrt()
        fade = envelope * scale  # (E, 1)
        reach = fade if self.settings.vector_cutoff else scale.expand_as(fade)  # of what goes into vectors
        directions = edges.vectors * (reach / edges.distances[:, None])  # (E, 3)
        at_zero = self.basis(basis.new_zeros(1))  # (1, K), where the envelope is 1
        nodes = self.combine(torch.cat([self.embedding(types), self._around(types, edges, basis, fade)], dim=1))
        vectors = None
        for layer in self.layers:
            nodes, vectors = of_owners(nodes), None if vectors is None else of_owners(vectors)
            nodes, vectors = layer(nodes, vectors, edges, scratch, (basis, fade, reach, directions), at_zero)
        nodes, vectors = self.gate(self.normalise(nodes), vectors)  # (N, F/2), (3, N, F/2)
        lengths = soft_norm(self.norm_of(vectors), self.settings.norm_softening)
        return self.output(silu(self.hidden(torch.cat([nodes, lengths], dim=1)))).squeeze(1)  # (N,)

    def _envelope(self, distance: Tensor) -> Tensor:
        if self.settings.envelope == "polynomial":
            return polynomial_envelope(distance, self.cutoff)
        return 0.5 + 0.5 * torch.cos((distance * (math.pi / self.cutoff)).clamp(max=math.pi))

    def _around(self, types: Tensor, edges: Edges, basis: Tensor, fade: Tensor) -> Tensor:
        """(N, F) sum_j (W f_ij + b) C_ij e_j, e the embedding of the neighbour's element.

        Summed over the neighbours of each element first, so that W and e act per atom.
        """
        kinds = len(self.elements)
        groups = replace(
            edges, centre=edges.centre * kinds + types.index_select(0, edges.neighbour), atoms=edges.atoms * kinds
        )
        _, (sums, counts) = groups.exchange(lambda basis, fade: ((), (basis * fade, fade)), (basis, fade))
        elements = self.embedding_of_neighbours.weight  # (T, F)
        maps = self.embedding_filter.weight.t() * elements[:, None, :]  # (T, K, F)
        shifts = self.embedding_filter.bias * elements  # (T, F)
        atoms = types.shape[0]
        return sums.view(atoms, kinds * maps.shape[1]) @ maps.flatten(0, 1) + counts.view(atoms, kinds) @ shifts

    def floats_per_edge(self) -> int:
        settings = self.settings
        if self.products == "full":  # what the derivative by hand keeps
            return settings.layers * (4 * settings.width + settings.heads) + 6 * settings.radial
        return settings.layers * 30 * settings.width + 4 * settings.radial

    def reset_output(self) -> None:
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)


def soft_norm(vectors: Tensor, softening: float) -> Tensor:
    """Lengths (N, F) of vectors (3, N, F), sqrt(v² + s²) - s; all derivatives are finite, of a zero vector too."""
    squares = vectors.square().sum(0)
    if softening > 0:
        return (squares + softening**2).sqrt() - softening
    zero = squares == 0  # the root is not taken where its derivative is infinite
    return squares.masked_fill(zero, 1.0).sqrt().masked_fill(zero, 0.0)


def _linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class _GatedBlock(nn.Module):
    """Scalars (N, F) and vectors (3, N, F) to fewer of both: scalars see lengths of vectors, vectors are scaled."""

    def __init__(self, width: int, outputs: int, softening: float) -> None:
        super().__init__()
        self.softening = softening
        self.norm_of = nn.Linear(width, width, bias=False)
        self.vectors = nn.Linear(width, outputs, bias=False)
        self.hidden = _linear(2 * width, width)
        self.output = _linear(width, 2 * outputs)
        nn.init.xavier_uniform_(self.norm_of.weight)
        nn.init.xavier_uniform_(self.vectors.weight)

    def forward(self, nodes: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        lengths = soft_norm(self.norm_of(vectors), self.softening)
        scalars, gates = self.output(silu(self.hidden(torch.cat([nodes, lengths], dim=1)))).chunk(2, dim=1)
        return silu(scalars), gates * self.vectors(vectors)


class _Attention(nn.Module):
    """One layer. Projections of atoms are made per atom and gathered; v and its projections are (3, N, F)."""

    def __init__(self, settings: TorchMDNetSettings, *, first: bool) -> None:
        super().__init__()
        width, radial = settings.width, settings.radial
        self.heads = settings.heads
        self.first = first
        self.normalise = nn.LayerNorm(width)
        self.query, self.key, self.value, self.point = (_linear(width, width) for _ in range(4))
        self.key_filter, self.value_filter, self.point_filter = (_linear(radial, width) for _ in range(3))
        self.output = _linear(width, width if first else 3 * width)
        if not first:
            self.carry = _linear(width, width)
            self.carry_filter = _linear(radial, width)
            self.products = nn.Linear(width, 3 * width, bias=False)
            nn.init.xavier_uniform_(self.products.weight)

    def filters(self) -> list[nn.Linear]:
        """Of keys, values, directions and, but for the first layer, of vectors."""
        return [self.key_filter, self.value_filter, self.point_filter, *(() if self.first else (self.carry_filter,))]

    def forward(
        self,
        nodes: Tensor,
        vectors: Tensor | None,
        edges: Edges,
        scratch: Tensor | None,
        on_edges: tuple[Tensor, Tensor, Tensor, Tensor],
        at_zero: Tensor,
    ) -> tuple[Tensor, Tensor]:
        normal = self.normalise(nodes)
        query, key, value, point = self.query(normal), self.key(normal), self.value(normal), self.point(normal)
        carried = None if vectors is None else vectors * self.carry(normal)
        of_neighbours = (key, value, point, *(() if carried is None else carried.unbind(0)))
        scalars, *along = self._sums(edges, scratch, on_edges, query, of_neighbours)
        new = torch.stack(along)  # (3, N, F)
        key_filter, value_filter, _, *carry_filter = (silu(filtered(at_zero)) for filtered in self.filters())  # (1, F)
        weight = silu(head_sums(query * key * key_filter, self.heads))
        scalars = scalars + over_heads(value * value_filter, weight)
        if vectors is None or carried is None:
            return nodes + self.output(scalars), new
        left, right, mixed = self.products(vectors).chunk(3, dim=2)
        gate, of_products, added = self.output(scalars).chunk(3, dim=1)
        nodes = nodes + of_products * (left * right).sum(0) + added
        return nodes, vectors + gate * mixed + new + carried * carry_filter[0]

    def _sums(
        self,
        edges: Edges,
        scratch: Tensor | None,
        on_edges: tuple[Tensor, Tensor, Tensor, Tensor],
        query: Tensor,
        of_neighbours: tuple[Tensor, ...],
    ) -> tuple[Tensor, ...]:
        if scratch is not None:
            return BlockedSums.apply(self, edges, scratch, *on_edges, query, *of_neighbours)  # type: ignore[no-any-return]
        return edges.exchange(self._message, on_edges, (query,), of_neighbours)[1]

    def _message(
        self,
        basis: Tensor,
        fade: Tensor,
        reach: Tensor,
        directions: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        point: Tensor,
        *carried: Tensor,
    ) -> tuple[tuple[()], tuple[Tensor, ...]]:
        weight = silu(head_sums(query * key * silu(self.key_filter(basis)), self.heads)) * fade  # (E, H)
        scalars = over_heads(value * silu(self.value_filter(basis)), weight)  # (E, F)
        pointing = point * silu(self.point_filter(basis))
        along = [pointing * component for component in directions.split(1, dim=1)]
        if carried:
            carry = silu(self.carry_filter(basis)) * reach
            along = [new + carry * old for new, old in zip(along, carried, strict=True)]
        return (), (scalars, *along)
