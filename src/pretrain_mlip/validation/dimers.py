"""Dimer scans: two atoms alone, from deep inside the repulsive wall to beyond the cutoff.

The curve of a pair says what a test set cannot: whether anything keeps two atoms apart that no training frame brought
so close. Far-out values are what matters here, so energies are relative to the largest distance of the scan.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii

from pretrain_mlip.errors import ComputationError, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CONTACT = 0.6  # of the sum of covalent radii: no bond is as short, so that every pair must repel there
WALLS = (0.5, 1.0)  # Å


def scan_dimers(
    potential: Any,
    elements: Sequence[str],
    r_min: float = 0.4,
    r_max: float = 8.0,
    points: int = 200,
) -> dict[str, dict[str, list[float]]]:
    """Energy and force of every pair of elements as isolated dimers (no cell, no periodic images).

    Args:
        potential: an ASE calculator, or a function from structures to their labels (faster for batched models).
        elements: symbols.
        r_min: shortest distance in Å.
        r_max: longest distance in Å; its energy is the zero, so it should reach the cutoff.
        points: number of distances, evenly spaced.

    Returns:
        Pair ("O-Si", sorted symbols) -> ``r`` in Å, ``energy`` in eV relative to r_max, ``force`` in eV/Å along the
        bond, positive where the atoms repel. NaN where the calculator gives no finite number.

    Raises:
        InputError: an unknown element, or a range that is none.
    """
    unknown = [symbol for symbol in elements if symbol not in atomic_numbers]
    if unknown:
        raise InputError(f"dimer scan: unknown element '{unknown[0]}'")
    if not 0 < r_min < r_max or points < 2:
        raise InputError("dimer scan: 0 < r_min < r_max and at least 2 points are needed")
    distances = np.linspace(r_min, r_max, points)
    pairs = itertools.combinations_with_replacement(sorted(set(elements)), 2)
    return {"-".join(pair): scan_pair(potential, pair, distances) for pair in pairs}


def scan_pair(potential: Any, pair: tuple[str, str], distances: np.ndarray) -> dict[str, list[float]]:
    """One curve of ``scan_dimers``, at distances in Å; energies relative to that at the last one."""
    values = np.array(_values(potential, pair, distances))
    energy = values[:, 0] - values[-1, 0]
    return {"r": distances.tolist(), "energy": energy.tolist(), "force": values[:, 1].tolist()}


def dimer_metrics(scans: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, dict[str, Any]]:
    """Judge each curve of ``scan_dimers``.

    Returns:
        Pair -> ``contact`` (Å, 0.6 of the covalent sum); ``wall_0.5`` and ``wall_1.0`` (eV at these distances, None
        outside of the scan); ``repulsive_at_contact`` (the force repels everywhere inside contact);
        ``turning_points`` (sign changes of the force inside contact, 0 for a sound wall); ``well_depth`` (eV, positive)
        and ``well_distance`` (Å) of the lowest point; ``finite`` (every point of the curve is).
    """
    return {pair: _metrics(pair, scan) for pair, scan in scans.items()}


def _values(potential: Any, pair: tuple[str, str], distances: np.ndarray) -> list[tuple[float, float]]:
    """Energy and repulsion at each distance."""
    if hasattr(potential, "get_potential_energy"):
        return [_dimer(potential, pair, r) for r in distances]
    found = potential([Atoms(pair, positions=[[0.0, 0.0, 0.0], [r, 0.0, 0.0]]) for r in distances])
    return [(labels.energy, float(labels.forces[1, 0] - labels.forces[0, 0]) / 2.0) for labels in found]


def _dimer(calculator: Any, pair: tuple[str, str], r: float) -> tuple[float, float]:
    atoms = Atoms(pair, positions=[[0.0, 0.0, 0.0], [r, 0.0, 0.0]], calculator=calculator)
    try:
        with np.errstate(all="ignore"):  # overflow inside the wall is a finding, not a warning
            energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    except (ArithmeticError, ComputationError):
        return np.nan, np.nan
    values = float(energy), float(forces[1, 0] - forces[0, 0]) / 2.0
    return values if np.isfinite(values).all() else (np.nan, np.nan)


def _metrics(pair: str, scan: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    r, energy, force = (np.array(scan[key], dtype=float) for key in ("r", "energy", "force"))
    contact = CONTACT * sum(covalent_radii[atomic_numbers[symbol]] for symbol in pair.split("-"))
    finite = np.isfinite(energy) & np.isfinite(force)
    inside = force[(r < contact) & finite]
    result: dict[str, Any] = {"contact": float(contact)}
    for wall in WALLS:
        known = finite.any() and r[finite][0] <= wall <= r[finite][-1]
        result[f"wall_{wall:.1f}"] = float(np.interp(wall, r[finite], energy[finite])) if known else None
    result["repulsive_at_contact"] = bool((inside > 0).all()) if inside.size else None
    result["turning_points"] = int(np.sum(np.diff(np.sign(inside)) != 0)) if inside.size else None
    lowest = int(np.nanargmin(energy)) if finite.any() else None
    result["well_depth"] = float(-energy[lowest]) if lowest is not None else None
    result["well_distance"] = float(r[lowest]) if lowest is not None else None
    result["finite"] = bool(finite.all())
    return result
