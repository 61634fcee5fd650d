"""Where a structure failed: the atoms at fault with their surroundings, small enough to keep and to draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms

from pretrain_mlip.structures.neighbors import find_pairs

REACH = 5.0  # Å around the first atom at fault
MOST = 100  # atoms, the nearest


def failure_site(atoms: Atoms, at_fault: Sequence[int]) -> dict[str, Any] | None:
    """The surroundings of the first atom at fault, periodic images included.

    Args:
        atoms: the structure that failed.
        at_fault: its atoms at fault; a pair of equal numbers is an atom and its own image.

    Returns:
        ``symbols``; ``positions`` (n, 3) in Å from the first atom at fault, the nearest first; ``at_fault``, which of
        them are. None where no atom is at fault, or where positions are not finite.
    """
    finite = np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()
    if not len(at_fault) or not finite:
        return None
    centre, *others = at_fault
    numbers, vectors = _surroundings(atoms, centre)
    near = [int(np.flatnonzero(numbers == other)[0]) for other in others if other in numbers]
    return {
        "symbols": [atoms[centre].symbol, *(atoms[number].symbol for number in numbers)],
        "positions": np.vstack([np.zeros(3), vectors]).round(3).tolist(),
        "at_fault": sorted({0, *(place + 1 for place in near)}),
    }


def _surroundings(atoms: Atoms, centre: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the nearest atoms, and vectors to them."""
    first, second, distances, vectors = find_pairs("ijdD", atoms, REACH)
    mine = np.flatnonzero(first == centre)
    nearest = mine[np.argsort(distances[mine], kind="stable")][: MOST - 1]
    return second[nearest], vectors[nearest].reshape(-1, 3)
