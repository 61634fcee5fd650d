"""Every pair within a cutoff, periodic images included, whatever the cell: the one search for neighbours."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from ase import Atoms
from ase.geometry import complete_cell
from matscipy.neighbours import neighbour_list

from pretrain_mlip.errors import InputError

Cutoff = float | Mapping[tuple[int, int], float]


def find_pairs(quantities: str, atoms: Atoms, cutoff: Cutoff) -> tuple[np.ndarray, ...]:
    """All directed pairs closer than a cutoff, sorted by their first atom.

    There is no cap on the number of neighbours, and an atom sees its own periodic images. Cells may be smaller than
    the cutoff, skewed, periodic in some directions only or absent; positions may lie outside the cell.

    Args:
        quantities: letters of matscipy: i first atom, j second atom, d distance (Å), D vector from i to j (Å), S
            integer shifts, so that D = r_j + S @ cell - r_i.
        atoms: the structure.
        cutoff: Å, or a distance for each pair of atomic numbers; pairs that are not named have none.

    Raises:
        InputError: positions or cell are not finite, or a periodic direction has no extent.
    """
    positions, cell, pbc = atoms.positions, np.array(atoms.cell), np.array(atoms.pbc)
    if not np.isfinite(positions).all():
        raise InputError(f"positions of atom {int(np.argwhere(~np.isfinite(positions))[0, 0])} are not finite")
    if not np.isfinite(cell).all():
        raise InputError("the cell is not finite")
    reach = max(cutoff.values(), default=0.0) if isinstance(cutoff, Mapping) else cutoff
    positions, box, origin = _box(positions, cell, pbc, reach)
    found = neighbour_list(
        quantities,
        cutoff=dict(cutoff) if isinstance(cutoff, Mapping) else float(cutoff),
        positions=positions,
        cell=box,
        pbc=pbc,
        cell_origin=origin,
        numbers=atoms.numbers.astype(np.int32),  # the C code takes nothing else
    )
    return found if isinstance(found, tuple) else (found,)


def _box(
    positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, reach: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions, a full-rank cell and its origin that holds them: periodic rows as given, the others fitted.

    Where a direction is not periodic its cell vector, if any, says nothing about where atoms may be. Empty space wider
    than ``reach`` is narrowed there: no pair reaches across it, and the search needs memory for the space it searches,
    which an atom that flies away would make endless.
    """
    box = complete_cell(np.where(pbc[:, None], cell, 0.0))
    if not all(cell[axis].any() for axis in np.flatnonzero(pbc)) or abs(np.linalg.det(box)) < 1e-10:
        raise InputError("a periodic direction of the cell has no extent; set the cell, or pbc=False")
    origin = np.zeros(3)
    for axis in np.flatnonzero(~pbc):  # complete_cell made these orthogonal to the periodic ones and to each other
        direction = box[axis] / np.linalg.norm(box[axis])
        along = positions @ direction if len(positions) else np.zeros(1)
        order = np.argsort(along)
        excess = np.maximum(np.diff(along[order]) - (reach + 1.0), 0.0)
        if excess.any():
            shift = np.zeros(len(positions))
            shift[order[1:]] = np.cumsum(excess)
            shift -= shift[order[len(order) // 2]]  # most atoms stay, and keep their digits
            positions = positions - shift[:, None] * direction
            along = positions @ direction
        box[axis] = direction * (np.ptp(along) + 2.0)
        origin += direction * (along.min() - 1.0)
    return positions, box, origin
