"""Pairs of atoms, periodic images included, of a single structure."""

from __future__ import annotations

from itertools import combinations_with_replacement
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from pretrain_mlip.structures.neighbors import find_pairs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


def pairs_within(atoms: Atoms, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pairs closer than ``cutoff`` (Å), each once.

    Returns:
        i, j (P,) with i <= j; vectors (P, 3) from i to j in Å; integer shifts (P, 3) of j.
    """
    i, j, vectors, shifts = find_pairs("ijDS", atoms, cutoff)
    # Of an atom and its own images, keep the half with a positive first shift.
    first = np.take_along_axis(shifts, (shifts != 0).argmax(axis=1)[:, None], axis=1)[:, 0]
    once = (i < j) | ((i == j) & (first > 0))
    return i[once], j[once], vectors[once], shifts[once]


def closest_distance(atoms: Atoms, below: float) -> float | None:
    """Shortest distance (Å) between two atoms or images, or None where none is shorter than ``below`` (Å)."""
    _, _, vectors, _ = pairs_within(atoms, below)
    return float(np.linalg.norm(vectors, axis=1).min()) if len(vectors) else None


def pair_name(first: int, second: int) -> str:
    """Name of a pair of atomic numbers, such as O-Si: symbols in alphabetical order."""
    return "-".join(sorted((chemical_symbols[first], chemical_symbols[second])))


def pairs_of(frames: Iterable[Atoms]) -> list[str]:
    """Names of all pairs of the elements in the frames, whether a frame has them together or not."""
    numbers = sorted({int(number) for atoms in frames for number in atoms.numbers})
    return sorted(pair_name(*pair) for pair in combinations_with_replacement(numbers, 2))


def distances_by_pair(frames: Sequence[Atoms], r_max: float) -> dict[str, np.ndarray]:
    """Distances (Å) up to ``r_max`` of all pairs in the frames: pair name ("O-Si") -> (P,); each pair counts once."""
    found: dict[str, list[np.ndarray]] = {}
    for atoms in frames:
        i, j, vectors, _ = pairs_within(atoms, r_max)
        distances = np.linalg.norm(vectors, axis=1)
        kinds = np.sort(np.stack([atoms.numbers[i], atoms.numbers[j]], axis=1), axis=1)
        for first, second in np.unique(kinds, axis=0):
            chosen = (kinds == (first, second)).all(axis=1)
            found.setdefault(pair_name(first, second), []).append(distances[chosen])
    return {name: np.concatenate(parts) for name, parts in sorted(found.items())}


def pair_distance_histograms(frames: Sequence[Atoms], r_max: float = 8.0, bins: int = 160) -> dict[str, np.ndarray]:
    """Number of pairs per distance, summed over the frames.

    Args:
        frames: structures of any periodicity.
        r_max: end of the last bin, Å.
        bins: number of bins from 0 to ``r_max``.

    Returns:
        Pair name ("O-Si") -> (bins,) integer counts; each pair of atoms or images counts once.
    """
    edges = np.linspace(0.0, r_max, bins + 1)
    counts: dict[str, np.ndarray] = {}
    for block in _blocks(frames):
        for name, found in distances_by_pair(block, r_max).items():
            counts[name] = counts.get(name, 0) + np.histogram(found, edges)[0]
    return dict(sorted(counts.items()))


def _blocks(frames: Sequence[Atoms]) -> Iterator[Sequence[Atoms]]:
    """A few frames at a time: all distances of a large set would not fit into memory."""
    return (frames[start : start + 100] for start in range(0, len(frames), 100))


def bin_edges(start: float, end: float, width: float = 0.1) -> np.ndarray:
    """A range (Å) divided evenly into bins of about this width."""
    return np.linspace(start, end, max(1, round((end - start) / width)) + 1)


class Coverage(NamedTuple):
    """Which distances of a pair of elements some structures show."""

    closest: float | None  # Å, None where the pair is nowhere within reach
    filled: int  # bins with at least one pair
    bins: int


def pair_coverage(frames: Sequence[Atoms], names: Iterable[str], start: float, end: float) -> dict[str, Coverage]:
    """How much of a range of distances the structures show, for each pair of elements.

    Args:
        frames: structures of any periodicity.
        names: of pairs, see ``pairs_of``.
        start: of the range, Å.
        end: of the range, Å.

    Returns:
        Pair name -> closest distance, how many bins of 0.1 Å are filled, how many there are.
    """
    edges = bin_edges(start, end)
    filled: dict[str, np.ndarray] = {}
    closest: dict[str, float] = {}
    for block in _blocks(frames):
        for name, distances in distances_by_pair(block, end).items():
            filled[name] = (np.histogram(distances, edges)[0] > 0) | filled.get(name, False)
            closest[name] = min(closest.get(name, np.inf), distances.min(initial=np.inf))
    bins = len(edges) - 1
    return {
        name: Coverage(
            float(closest[name]) if np.isfinite(closest.get(name, np.inf)) else None,
            int(np.count_nonzero(filled.get(name, False))),
            bins,
        )
        for name in names
    }
