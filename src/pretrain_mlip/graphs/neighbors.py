"""Every pair within a cutoff, periodic images included, whatever the cell."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.geometry import complete_cell
from matscipy.neighbours import neighbour_list

from pretrain_mlip.errors import InputError


def neighbor_list(atoms: Atoms, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    """Directed pairs closer than ``cutoff``, sorted by centre.

    There is no cap on the number of neighbours, and an atom sees its own periodic images. Cells may be smaller than
    the cutoff, skewed, periodic in some directions only or absent; positions may lie outside the cell.

    Args:
        atoms: the structure.
        cutoff: Å.

    Returns:
        edge_index (2, E) int64, row 0 the neighbour j and row 1 the centre i, and cell_shifts (E, 3) int64, so that
        the vector from i to j is r_j + cell_shifts @ cell - r_i.

    Raises:
        InputError: positions or cell are not finite, or a periodic direction has no extent.
    """
    positions, cell, pbc = atoms.positions, np.array(atoms.cell), np.array(atoms.pbc)
    if not np.isfinite(positions).all():
        raise InputError(f"positions of atom {int(np.argwhere(~np.isfinite(positions))[0, 0])} are not finite")
    if not np.isfinite(cell).all():
        raise InputError("the cell is not finite")
    if len(atoms) == 0:
        return np.zeros((2, 0), dtype=np.int64), np.zeros((0, 3), dtype=np.int64)
    box, origin = _box(positions, cell, pbc)
    centre, neighbour, shifts = neighbour_list(
        "ijS",
        cutoff=float(cutoff),
        positions=positions,
        cell=box,
        pbc=pbc,
        cell_origin=origin,
        numbers=atoms.numbers.astype(np.int32),
    )
    return np.stack([neighbour, centre]).astype(np.int64), shifts.astype(np.int64)


def _box(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A full-rank cell and its origin that hold the atoms: periodic rows as given, the others fitted to the atoms.

    Where a direction is not periodic its cell vector, if any, says nothing about where atoms may be.
    """
    box = complete_cell(np.where(pbc[:, None], cell, 0.0))
    if not all(cell[axis].any() for axis in np.flatnonzero(pbc)) or abs(np.linalg.det(box)) < 1e-10:
        raise InputError("a periodic direction of the cell has no extent; set the cell, or pbc=False")
    origin = np.zeros(3)
    for axis in np.flatnonzero(~pbc):  # complete_cell made these orthogonal to the periodic ones and to each other
        direction = box[axis] / np.linalg.norm(box[axis])
        along = positions @ direction
        box[axis] = direction * (np.ptp(along) + 2.0)
        origin += direction * (along.min() - 1.0)
    return box, origin
