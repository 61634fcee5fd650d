"""Bond scans: one bond of a crystal or a liquid driven from half of its length to twice, all other atoms at rest.

Two atoms alone say what keeps them apart; a bond among its neighbours, whether the potential is smooth and free of
holes where it is used.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from ase import Atoms

from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.structures.neighbors import find_pairs
from pretrain_mlip.validation.properties.relaxation import check_crystal, repetitions

REACH = 6.0  # Å, the longest bond that is looked for
WIDTH = 8.0  # Å, of the cell, so that an atom is far from its own images
SHALLOW = 1e-3  # eV: smaller wells are rounding in float32


def scan_bonds(
    calculator: Any, atoms: Atoms, *, shortest: float = 0.5, longest: float = 2.0, points: int = 151
) -> dict[str, dict[str, Any]]:
    """Move the second atom of the shortest bond of each pair of elements along it.

    Args:
        calculator: any ASE calculator.
        atoms: periodic in three directions; repeated where it is narrower than 8 Å.
        shortest: first distance, as a share of the length of the bond.
        longest: last distance likewise.
        points: number of distances.

    Returns:
        Pair ("O-Si", sorted symbols; those whose atoms are within 6 Å) -> ``length`` of the bond in Å; ``r`` in Å,
        ``energy`` in eV relative to the structure as it was, ``force`` in eV/Å on the second atom along the bond,
        positive where it is driven away. NaN where the calculator gives no finite number.

    Raises:
        InputError: no crystal, one atom alone, or a range that is none.
    """
    check_crystal(atoms)
    if not 0 < shortest < 1 < longest or points < 3:
        raise InputError("bond scan: shortest < 1 < longest and at least 3 points are needed")
    wide = Atoms(atoms.symbols, positions=atoms.positions, cell=atoms.cell, pbc=True) * repetitions(atoms, WIDTH)
    bonds = _shortest_bonds(wide)
    if not bonds:
        raise InputError(f"bond scan: no two atoms are within {REACH:g} Å")
    found = {}
    for pair, (moved, vector) in bonds.items():
        length = float(np.linalg.norm(vector))
        r = length * np.linspace(shortest, longest, points)
        values = np.array([_moved(calculator, wide, moved, vector / length, one - length) for one in r])
        start = _moved(calculator, wide, moved, vector / length, 0.0)[0]
        found[pair] = {
            "length": length,
            "r": r.tolist(),
            "energy": (values[:, 0] - start).tolist(),
            "force": values[:, 1].tolist(),
        }
    return found


def bond_metrics(scans: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Judge each curve of ``scan_bonds``.

    Returns:
        Pair -> ``length`` in Å; ``jump``, the largest change of energy in one step that forces do not account for, in
        eV (Simpson's rule over two steps); ``minima``, wells deeper than 1 meV besides that of the bond itself;
        ``lowest``, the lowest energy of the scan in eV, far below zero in a hole; ``repels``, whether the force drives
        the atoms apart at the shortest distance; ``finite``, whether every point is.
    """
    return {pair: _metrics(scan) for pair, scan in scans.items()}


def _shortest_bonds(atoms: Atoms) -> dict[str, tuple[int, np.ndarray]]:
    """Pair -> the atom to be moved, and the vector to it from its neighbour."""
    first, second, distances, vectors = find_pairs("ijdD", atoms, REACH)
    symbols = np.array(atoms.get_chemical_symbols())
    bonds = {}
    for pair in itertools.combinations_with_replacement(sorted(set(symbols)), 2):
        mine = np.flatnonzero((symbols[first] == pair[0]) & (symbols[second] == pair[1]) & (first != second))
        if len(mine):
            nearest = mine[np.argmin(distances[mine])]
            bonds["-".join(pair)] = (int(second[nearest]), vectors[nearest])
    return bonds


def _moved(calculator: Any, atoms: Atoms, moved: int, along: np.ndarray, by: float) -> tuple[float, float]:
    """Energy, and force on the moved atom along the bond."""
    copy = atoms.copy()
    copy.positions[moved] += by * along
    copy.calc = calculator
    try:
        with np.errstate(all="ignore"):  # overflow inside the wall is a finding, not a warning
            values = float(copy.get_potential_energy()), float(copy.get_forces()[moved] @ along)
    except (ArithmeticError, ComputationError):
        return np.nan, np.nan
    return values if np.isfinite(values).all() else (np.nan, np.nan)


def _metrics(scan: Mapping[str, Any]) -> dict[str, Any]:
    r, energy, force = (np.array(scan[key], dtype=float) for key in ("r", "energy", "force"))
    finite = np.isfinite(energy) & np.isfinite(force)
    step = r[1] - r[0]
    by_forces = -step / 3 * (force[:-2] + 4 * force[1:-1] + force[2:])
    jumps = np.abs(energy[2:] - energy[:-2] - by_forces)
    return {
        "length": scan["length"],
        "jump": float(np.nanmax(jumps)) if np.isfinite(jumps).any() else None,
        "minima": _other_minima(r[finite], energy[finite], scan["length"]),
        "lowest": float(energy[finite].min()) if finite.any() else None,
        "repels": bool(force[0] > 0),
        "finite": bool(finite.all()),
    }


def _other_minima(r: np.ndarray, energy: np.ndarray, length: float) -> int:
    """Wells with walls higher than rounding on both sides, but for that which is nearest to the bond."""
    inner = np.flatnonzero((energy[1:-1] < energy[:-2]) & (energy[1:-1] <= energy[2:])) + 1
    deep = [place for place in inner if min(energy[:place].max(), energy[place:].max()) > energy[place] + SHALLOW]
    places = sorted(deep, key=lambda place: abs(r[place] - length))
    return max(0, len(places) - 1)
