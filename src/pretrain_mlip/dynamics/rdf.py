"""Radial distribution functions g(r) of trajectories, total and per pair of elements, and how much two differ."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from pretrain_mlip import console
from pretrain_mlip.errors import InputError
from pretrain_mlip.structures.neighbors import find_pairs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ase import Atoms


@dataclass
class RDF:
    """Radial distribution functions averaged over frames; plain lists, ready for JSON.

    Attributes:
        r: centres of the bins in Å.
        total: g(r) of all atoms regardless of element.
        partials: g(r) per pair, named by its sorted symbols ("O-Si").
        coordination: centre -> neighbour element -> mean number of neighbours up to the outer edge of each bin.
        frames: number of frames.
    """

    r: list[float]
    total: list[float]
    partials: dict[str, list[float]]
    coordination: dict[str, dict[str, list[float]]]
    frames: int

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        return dataclasses.asdict(self)


def radial_distribution(
    frames: Iterable[Atoms],
    r_max: float = 6.0,
    bins: int = 120,
    pairs: Sequence[str] | None = None,
) -> RDF:
    """g(r) of periodic structures, which may be smaller than 2 r_max and change their volume.

    For a pair of elements A and B with N_A, N_B atoms in a volume V, g_AB = n_AB(r) V / (N_A N_B v(r)): n_AB counts the
    ordered pairs in a bin, periodic images included, and v is the volume of its shell. Then the mean number of B
    around A up to R is the integral of (N_B / V) g_AB 4 pi r² from 0 to R, for A = B as well.

    Args:
        frames: structures of any composition; a partial is averaged over the frames that have both elements.
        r_max: range in Å.
        bins: number of bins.
        pairs: pairs to keep, such as "Si-O" in any order; None keeps all.

    Raises:
        InputError: r_max or bins that make no sense, no frame, a frame that is not periodic in three directions, or a
            pair that no frame has.
    """
    if not 0.0 < r_max < np.inf or bins < 1:
        raise InputError(f"radial distribution: r_max {r_max:g} Å with {bins} bins; both must be positive and finite")
    edges = np.linspace(0.0, r_max, bins + 1)
    shells = 4.0 / 3.0 * np.pi * np.diff(edges**3)
    totals: list[np.ndarray] = []
    partials: dict[str, list[np.ndarray]] = {}
    neighbours: dict[tuple[str, str], list[np.ndarray]] = {}
    for index, atoms in enumerate(console.track(frames, "RDF")):
        _check_periodic(atoms, index)
        numbers, volume = atoms.numbers, float(atoms.cell.volume)
        first, second, distance = find_pairs("ijd", atoms, r_max)
        totals.append(np.histogram(distance, edges)[0] * volume / (len(atoms) ** 2 * shells))
        for a, b in itertools.product(np.unique(numbers), repeat=2):
            counts = np.histogram(distance[(numbers[first] == a) & (numbers[second] == b)], edges)[0]
            in_a, in_b = int(np.sum(numbers == a)), int(np.sum(numbers == b))
            centre, other = chemical_symbols[a], chemical_symbols[b]
            neighbours.setdefault((centre, other), []).append(np.cumsum(counts) / in_a)
            if centre <= other:
                g = counts * volume / (in_a * in_b * shells)
                partials.setdefault(f"{centre}-{other}", []).append(g)
    if not totals:
        raise InputError("radial distribution: no frame given")
    wanted = _wanted(pairs, partials)
    coordination: dict[str, dict[str, list[float]]] = {}
    for (centre, other), counts in sorted(neighbours.items()):
        if "-".join(sorted((centre, other))) in wanted:
            coordination.setdefault(centre, {})[other] = _mean(counts)
    return RDF(
        r=(0.5 * (edges[1:] + edges[:-1])).tolist(),
        total=_mean(totals),
        partials={pair: _mean(partials[pair]) for pair in wanted},
        coordination=coordination,
        frames=len(totals),
    )


def rdf_mae(a: RDF, b: RDF) -> dict[str, float]:
    """Mean over r of abs(g_a - g_b), for "total" and each pair that both have.

    Raises:
        InputError: the two were made with different r_max or bins.
    """
    if not (len(a.r) == len(b.r) and np.allclose(a.r, b.r)):
        raise InputError("radial distribution: only functions with the same r_max and bins can be compared")
    result = {"total": _difference(a.total, b.total)}
    for pair in sorted(a.partials.keys() & b.partials.keys()):
        result[pair] = _difference(a.partials[pair], b.partials[pair])
    return result


def _check_periodic(atoms: Atoms, index: int) -> None:
    if not atoms.pbc.all() or atoms.cell.rank < 3:
        raise InputError(
            f"radial distribution: frame {index} is not periodic in three directions, so that it has no density; "
            "give structures with a cell and pbc"
        )


def _wanted(pairs: Sequence[str] | None, found: Mapping[str, object]) -> list[str]:
    if pairs is None:
        return sorted(found)
    result = []
    for pair in pairs:
        symbols = pair.split("-")
        if len(symbols) != 2 or any(symbol not in atomic_numbers for symbol in symbols):
            raise InputError(f"radial distribution: '{pair}' is no pair of elements; write it like Si-O")
        name = "-".join(sorted(symbols))
        if name not in found:
            raise InputError(f"radial distribution: no frame has the pair {pair}; there are {', '.join(sorted(found))}")
        result.append(name)
    return sorted(set(result))


def _mean(values: Sequence[np.ndarray]) -> list[float]:
    return np.mean(values, axis=0).tolist()


def _difference(a: Sequence[float], b: Sequence[float]) -> float:
    return float(np.mean(np.abs(np.subtract(a, b))))
