"""How smooth and well-shaped the curve of a dimer is, by the measures of MLIP Arena.

Y. Chiang et al., "MLIP Arena", https://github.com/atomind-ai/mlip-arena, task homonuclear diatomics: curves from 0.9
covalent radii to 3.1 van der Waals radii in steps of 0.01 Å. Of two elements the means of their radii are taken here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase.data import atomic_numbers, covalent_radii
from ase.data.vdw_alvarez import vdw_radii
from scipy.stats import spearmanr

from pretrain_mlip.validation.dimers import scan_pair

NEAREST, FARTHEST, UNKNOWN_RADIUS = 0.9, 3.1, 6.0 / 3.1  # of radii; Å where no van der Waals radius is known
STEP = 0.01  # Å
NO_FORCE, NO_STEP = 0.01, 0.001  # eV/Å and eV below which signs do not count
TITLES = {  # for tables: name, unit, the value of a perfect curve
    "conservation_deviation": ("conservation deviation", "eV/Å", "0"),
    "spearman_repulsion_energy": ("Spearman E, repulsion", "", "-1"),
    "spearman_descending_force": ("Spearman F, descending", "", "-1"),
    "spearman_attraction_energy": ("Spearman E, attraction", "", "1"),
    "spearman_ascending_force": ("Spearman F, ascending", "", "1"),
    "tortuosity": ("tortuosity", "", "1"),
    "energy_jump": ("energy jump", "eV", "0"),
    "force_flips": ("force flips", "", "1"),
    "force_jump": ("force jump", "eV/Å", "small"),
}


def arena_scan(potential: Any, pair: tuple[str, str]) -> dict[str, list[float]]:
    """The curve that MLIP Arena measures; arguments and result as ``scan_pair`` has them."""
    numbers = [atomic_numbers[symbol] for symbol in pair]
    far = [vdw_radii[number] if number < len(vdw_radii) else math.nan for number in numbers]
    nearest = NEAREST * float(np.mean([covalent_radii[number] for number in numbers]))
    farthest = FARTHEST * float(np.mean([UNKNOWN_RADIUS if math.isnan(radius) else radius for radius in far]))
    return scan_pair(potential, pair, np.linspace(nearest, farthest, int((farthest - nearest) / STEP)))


def arena_metrics(curve: Mapping[str, Sequence[float]]) -> dict[str, float | None]:
    """Measures of a curve.

    Args:
        curve: ``r`` (Å, ascending), ``energy`` (eV), ``force`` (eV/Å, positive where the atoms repel).

    Returns:
        ``conservation_deviation``: mean of |F + dE/dr| in eV/Å, the derivative by differences;
        ``spearman_repulsion_energy``, ``spearman_attraction_energy``: rank correlation of energy and distance inside
        and outside of the minimum, -1 and 1 in a simple well;
        ``spearman_descending_force``, ``spearman_ascending_force``: likewise of force and distance inside and outside
        of the strongest attraction;
        ``tortuosity``: total variation of the energy over what one well needs, 1;
        ``energy_jump`` (eV), ``force_jump`` (eV/Å): sum of the changes around each reversal of the curve. A well has
        one reversal, of two small changes;
        ``force_flips``: changes of sign of the force, 1 in a well.
        All None where a point of the curve is not finite; a correlation is None where there are less than three points.
    """
    r, energy, force = (np.array(curve[key], dtype=float) for key in ("r", "energy", "force"))
    if not (np.isfinite(energy).all() and np.isfinite(force).all()):
        return dict.fromkeys(TITLES)
    lowest, steepest = int(np.argmin(energy)), int(np.argmin(force))
    strong = force[np.abs(force) >= NO_FORCE]
    steps = np.diff(energy)
    depths = abs(energy[0] - energy[lowest]) + energy[-1] - energy[lowest]
    return {
        "conservation_deviation": float(np.mean(np.abs(force + np.gradient(energy, r)))),
        "spearman_repulsion_energy": _correlation(r[: lowest + 1], energy[: lowest + 1]),
        "spearman_descending_force": _correlation(r[: steepest + 1], force[: steepest + 1]),
        "spearman_attraction_energy": _correlation(r[lowest + 1 :], energy[lowest + 1 :]),
        "spearman_ascending_force": _correlation(r[steepest + 1 :], force[steepest + 1 :]),
        "tortuosity": float(np.abs(steps).sum() / depths) if depths > 0 else None,
        "energy_jump": _jump(steps[np.abs(steps) >= NO_STEP]),
        "force_flips": float(np.sum(np.diff(np.sign(strong)) != 0)),
        "force_jump": _jump(np.diff(force)),
    }


def _correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    if len(first) < 3 or np.ptp(second) == 0:
        return None
    found: Any = spearmanr(first, second)
    return float(found.statistic)


def _jump(steps: np.ndarray) -> float:
    """Sum of the changes before and after each change of direction."""
    steps = steps[steps != 0]
    turns = np.diff(np.sign(steps)) != 0
    return float(np.abs(steps[:-1][turns]).sum() + np.abs(steps[1:][turns]).sum())
