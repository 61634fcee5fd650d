"""Pairs of atoms within a distance, for any mix of periodic and open directions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from matscipy.neighbours import neighbour_list

if TYPE_CHECKING:
    from ase import Atoms

Cutoff = float | Mapping[tuple[int, int], float]


def pairs_within(atoms: Atoms, cutoff: Cutoff) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All ordered pairs closer than a cutoff, periodic images counted (an atom's own images included).

    Args:
        atoms: any structure, with or without a cell; the positions must be finite.
        cutoff: one distance in Å, or a distance for each pair of atomic numbers; pairs that are not named have none.

    Returns:
        First atom (P,), second atom (P,) and distance in Å (P,); every pair appears in both directions.
    """
    cell, origin = _box(atoms)
    first, second, distance = neighbour_list(
        "ijd",
        positions=atoms.positions,
        cell=cell,
        pbc=atoms.pbc,
        numbers=atoms.numbers.astype(np.int32),  # the C code takes nothing else
        cell_origin=origin,
        cutoff=cutoff if isinstance(cutoff, int | float) else dict(cutoff),
    )
    return first, second, distance


def _box(atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
    """A full-rank cell and its corner: matscipy refuses cells with missing vectors, which open structures have."""
    if atoms.pbc.any():
        return np.asarray(atoms.cell.complete()), np.zeros(3)
    low, high = atoms.positions.min(axis=0), atoms.positions.max(axis=0)
    return np.diag(high - low + 1.0), low - 0.5
