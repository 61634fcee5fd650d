"""Pairs of atoms, periodic images included, of a single structure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from pretrain_mlip.structures.neighbors import find_pairs

if TYPE_CHECKING:
    from collections.abc import Sequence


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
    for atoms in frames:
        i, j, vectors, _ = pairs_within(atoms, r_max)
        distances = np.linalg.norm(vectors, axis=1)
        kinds = np.sort(np.stack([atoms.numbers[i], atoms.numbers[j]], axis=1), axis=1)
        for first, second in np.unique(kinds, axis=0):
            chosen = (kinds == (first, second)).all(axis=1)
            name = pair_name(first, second)
            counts[name] = counts.get(name, np.zeros(bins, dtype=int)) + np.histogram(distances[chosen], edges)[0]
    return dict(sorted(counts.items()))
