"""Sums over pairs of atoms: densities, energies, forces and virials of embedded-atom potentials.

Every pair appears once (a half list). Arrays hold one component of all pairs, in chunks that stay in the processor's
cache. The two passes over the pairs, before and after the embedding, are differentiable with respect to the functions
(not the positions), which is what a fit needs; labels and calculators take the same two passes without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pretrain_mlip.potentials.eam.splines import Cubics

CHUNK = 32768  # pairs; a quarter of a megabyte per array


class Functions(NamedTuple):
    """The radial functions of S types.

    Rows of ``pair`` are r phi(r) of (first type) * S + (second type). Rows of ``density`` are of the source's type, or
    of (source) * S + (centre) where ``by_centre``. Both have one grid; beyond the cutoff everything is zero.
    """

    pair: Cubics
    density: Cubics
    types: int
    by_centre: bool
    cutoff: float


class Pairs(NamedTuple):
    """A chunk of pairs, and where in the tables their functions lie.

    first, second, structure: (E,) indices of atoms and of their structure; x, y, z: (E,) Å from the first to the second
    atom; inverse: (E,) 1/r; u: (E,) place within the interval; pair, onto_first, onto_second: (E,) intervals of r phi,
    of the density of the second atom at the first, and of the first at the second. With one type they are the same.
    """

    first: Tensor
    second: Tensor
    structure: Tensor | None
    x: Tensor
    y: Tensor
    z: Tensor
    inverse: Tensor
    u: Tensor
    pair: Tensor
    onto_first: Tensor
    onto_second: Tensor


def locate(
    functions: Functions, types: Tensor, first: Tensor, second: Tensor, x: Tensor, y: Tensor, z: Tensor
) -> Pairs:
    """Look up pairs whose vectors from the first to the second atom are x, y, z (E,); they may exceed the cutoff."""
    distance = torch.addcmul(torch.addcmul(x * x, y, y), z, z).sqrt()
    nodes, count = functions.pair.nodes, functions.types
    scaled = distance * (1.0 / functions.pair.step)
    interval = scaled.detach().to(torch.int64).clamp_(max=nodes - 2)
    u = (scaled - interval).clamp_(max=1.0)  # some tables end short of the cutoff: LAMMPS keeps their last value
    interval = torch.where(distance < functions.cutoff, interval, nodes - 1)
    if count == 1:
        return Pairs(first, second, None, x, y, z, distance.reciprocal(), u, interval, interval, interval)
    a, b = types.index_select(0, first), types.index_select(0, second)
    ab = torch.add(b, a, alpha=count)
    rows = (ab, torch.add(a, b, alpha=count), ab) if functions.by_centre else (ab, b, a)
    places = [torch.add(interval, row, alpha=nodes) for row in rows]
    return Pairs(first, second, None, x, y, z, distance.reciprocal(), u, *places)


def half_list_chunks(
    functions: Functions, types: Tensor, edge_index: Tensor, vectors: Any, structure: Tensor | None = None
) -> Iterator[Pairs]:
    """Chunks of the pairs of a half list.

    Args:
        functions: the tables that pairs are looked up in.
        types: (N,).
        edge_index: (2, E), second atoms and first atoms (neighbour and centre), every pair once.
        vectors: a function from a slice of the pairs to x, y, z.
        structure: (N,) structure of each atom where there are several.
    """
    second, first = edge_index
    size = CHUNK if types.device.type == "cpu" else max(1, first.shape[0])
    for start in range(0, first.shape[0], size):
        part = slice(start, start + size)
        pairs = locate(functions, types, first[part], second[part], *vectors(part))
        if structure is not None:
            pairs = pairs._replace(structure=structure.index_select(0, pairs.first))
        yield pairs


class PairSums:
    """The two passes over the pairs of some structures.

    ``before`` gives the densities and the pair energies; ``after`` takes the derivatives of the embedding energies at
    these densities and gives forces and virials. ``after`` follows ``before`` with the same functions.
    """

    def __init__(self, chunks: Sequence[Pairs] | Iterator[Pairs], atoms: int, structures: int) -> None:
        """Sums over ``chunks``, which may be located only while ``before`` goes through them."""
        self.chunks = chunks
        self.atoms, self.structures = atoms, structures
        self.slopes: list[tuple[Tensor, Tensor, Tensor]] = []  # per chunk dphi/dr and both df/dr

    def before(self, functions: Functions) -> tuple[Tensor, Tensor]:
        """Densities (N,) and pair energies of atoms (N,) in eV, half of each pair's."""
        density, energies = _Before.apply(self, functions, *functions.pair[:4], *functions.density[:4])  # type: ignore[misc]
        return density, energies

    def after(self, functions: Functions, embedding_slope: Tensor, *, virial: bool = True) -> tuple[Tensor, Tensor]:
        """Forces (N, 3) in eV/Å and the strain derivative (B, 6) in eV, Voigt order, from dF/drho (N,) in eV.

        Without ``virial`` the second is zero, and the sums that it needs are left out.
        """
        coefficients = (*functions.pair[:4], *functions.density[:4])
        forces, strain_derivative = _After.apply(self, functions, virial, embedding_slope, *coefficients)  # type: ignore[misc]
        return forces.T, strain_derivative.T


class _Before(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sums: PairSums, functions: Functions, *coefficients: Tensor) -> tuple[Tensor, Tensor]:
        density, energies = (coefficients[0].new_zeros(sums.atoms) for _ in range(2))
        chunks, sums.slopes = [], []
        for pairs in sums.chunks:
            product, product_slope = functions.pair.both(pairs.pair, pairs.u)
            onto_first, slope_first = functions.density.both(pairs.onto_first, pairs.u)
            onto_second, slope_second = onto_first, slope_first
            if pairs.onto_second is not pairs.onto_first:
                onto_second, slope_second = functions.density.both(pairs.onto_second, pairs.u)
            density.scatter_add_(0, pairs.first, onto_first).scatter_add_(0, pairs.second, onto_second)
            value = product.mul_(pairs.inverse)
            energies.scatter_add_(0, pairs.first, value).scatter_add_(0, pairs.second, value)
            chunks.append(pairs)
            sums.slopes.append((product_slope.sub_(value).mul_(pairs.inverse), slope_first, slope_second))
        sums.chunks = chunks
        ctx.sums, ctx.functions = sums, functions
        return density, energies.mul_(0.5)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        of_density, of_energies = gradients
        found = _Collector(ctx.functions)
        for pairs in ctx.sums.chunks:
            of_value = of_energies.index_select(0, pairs.first).add_(of_energies.index_select(0, pairs.second))
            found.add_to_pair(pairs.pair, pairs.u, of_value.mul_(pairs.inverse).mul_(0.5), None)
            found.add_to_density(pairs.onto_first, pairs.u, of_density.index_select(0, pairs.first), None)
            found.add_to_density(pairs.onto_second, pairs.u, of_density.index_select(0, pairs.second), None)
        return None, None, *found.pair, *found.density


class _After(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        sums: PairSums,
        functions: Functions,
        with_virial: bool,  # noqa: FBT001  # autograd passes by place
        embedding_slope: Tensor,
        *_coefficients: Tensor,
    ) -> tuple[Tensor, Tensor]:
        forces = embedding_slope.new_zeros((3, sums.atoms))
        virial = embedding_slope.new_zeros((6, sums.structures))
        for pairs, (slope, slope_first, slope_second) in zip(sums.chunks, sums.slopes, strict=True):
            pull = torch.addcmul(slope, embedding_slope.index_select(0, pairs.first), slope_first)
            pull.addcmul_(embedding_slope.index_select(0, pairs.second), slope_second).mul_(pairs.inverse)
            pulls = [pull * along for along in (pairs.x, pairs.y, pairs.z)]
            for total, value in zip(virial, _products(pairs, pulls), strict=True) if with_virial else ():
                if pairs.structure is None:
                    total.add_(value.sum())
                else:
                    total.scatter_add_(0, pairs.structure, value)
            for total, value in zip(forces, pulls, strict=True):
                total.scatter_add_(0, pairs.first, value).scatter_add_(0, pairs.second, value.neg_())
        ctx.sums, ctx.functions, ctx.with_virial = sums, functions, with_virial
        ctx.save_for_backward(embedding_slope)
        return forces, virial

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        of_forces, of_virial = gradients
        (embedding_slope,) = ctx.saved_tensors
        of_slope = torch.zeros_like(embedding_slope)
        found = _Collector(ctx.functions)
        for pairs, (_, slope_first, slope_second) in zip(ctx.sums.chunks, ctx.sums.slopes, strict=True):
            vector = (pairs.x, pairs.y, pairs.z)
            of_pull = torch.zeros_like(pairs.u)
            for row, along in zip(of_forces, vector, strict=True):
                of_pull.addcmul_(row.index_select(0, pairs.first) - row.index_select(0, pairs.second), along)
            for row, value in zip(of_virial, _products(pairs, vector), strict=True) if ctx.with_virial else ():
                of_pull.addcmul_(row if pairs.structure is None else row.index_select(0, pairs.structure), value)
            of_pull.mul_(pairs.inverse)
            for place, atom, slope in (
                (pairs.onto_first, pairs.first, slope_first),
                (pairs.onto_second, pairs.second, slope_second),
            ):
                of_slope.scatter_add_(0, atom, of_pull * slope)
                found.add_to_density(place, pairs.u, None, of_pull * embedding_slope.index_select(0, atom))
            # dphi/dr = (dz/dr - z/r)/r of z = r phi
            of_product_slope = of_pull.mul_(pairs.inverse)
            found.add_to_pair(pairs.pair, pairs.u, -of_product_slope * pairs.inverse, of_product_slope)
        return None, None, None, of_slope, *found.pair, *found.density


def _products(pairs: Pairs, other: Sequence[Tensor]) -> Iterator[Tensor]:
    """Products of the vectors of pairs with parallel ones, in Voigt order."""
    vector = (pairs.x, pairs.y, pairs.z)
    return (vector[a] * other[b] for a, b in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)))


class _Collector:
    """Gradients of a loss with respect to the coefficients of the tables."""

    def __init__(self, functions: Functions) -> None:
        self.pair = [torch.zeros_like(c) for c in functions.pair[:4]]
        self.density = [torch.zeros_like(c) for c in functions.density[:4]]
        self.rate = 1.0 / functions.pair.step

    def add_to_pair(self, place: Tensor, u: Tensor, of_value: Tensor | None, of_slope: Tensor | None) -> None:
        self._add(self.pair, place, u, of_value, of_slope)

    def add_to_density(self, place: Tensor, u: Tensor, of_value: Tensor | None, of_slope: Tensor | None) -> None:
        self._add(self.density, place, u, of_value, of_slope)

    def _add(
        self, totals: list[Tensor], place: Tensor, u: Tensor, of_value: Tensor | None, of_slope: Tensor | None
    ) -> None:
        """Value c0 + c1 u + c2 u² + c3 u³ and slope (c1 + 2 c2 u + 3 c3 u²)/h, transposed."""
        slope = None if of_slope is None else of_slope * self.rate
        value = of_value
        for power, total in enumerate(totals):
            if value is not None:
                total.scatter_add_(0, place, value)
                value = value * u if power < 3 else None
            if slope is not None and power > 0:
                total.scatter_add_(0, place, slope if power == 1 else slope * power)
                slope = slope * u
