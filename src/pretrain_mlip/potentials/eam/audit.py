"""What the curves of an embedded-atom potential are worth, pair by pair: walls, wells, and where data end.

The curve of a pair is the energy of its free dimer, phi and both embedding energies, relative to separated atoms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from pretrain_mlip.potentials.eam.embedded_atom import EmbeddedAtom

CONTACT = 0.6  # of the sum of covalent radii: no bond is as short, so that every pair must repel there
WALLS = (0.5, 1.0)  # Å
SHORTEST, STEP = 0.2, 0.005  # Å, of the scan
NOISE = 1e-9  # eV/Å, slopes that count as none

Ranges = Mapping[tuple[int, int], tuple[float, float]]


def dimer_curve(eam: EmbeddedAtom, a: int, b: int, distance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Energy (eV) of a free dimer of two types relative to separated atoms, and its derivative (eV/Å)."""
    energy, slope = eam.pair(a, b, distance)
    for source, centre in ((a, b), (b, a)):
        types = torch.full(distance.shape, centre, device=distance.device)
        density, density_slope = eam.density(source, centre, distance)
        embedded, embedded_slope = eam.embedding(types, density)
        energy = energy + embedded - eam.embedding(types, torch.zeros_like(density))[0]
        slope = slope + embedded_slope * density_slope
    return energy, slope


def audit(eam: EmbeddedAtom, seen: Ranges | None = None) -> dict[str, dict[str, Any]]:
    """Judge every pair.

    Args:
        eam: the potential.
        seen: pair of types (the smaller first) -> shortest and longest distance (Å) in the data.

    Returns:
        Pair "A-B" -> ``contact`` (Å); ``repulsive`` (the force repels everywhere from 0.2 Å to contact);
        ``monotone`` (phi alone falls everywhere there, whatever surrounds the pair); ``wall_0.5`` and ``wall_1.0``
        (eV); ``turning_points``, each with ``r`` (Å), ``energy`` (eV), ``kind`` (minimum or maximum) and ``from``;
        ``seen`` (Å, shortest and longest distance in the data, or null); ``from_0.5``, ``from_1.0``: "data" where
        structures show such distances, "prior" where the curve is what the form makes of the rest.
    """
    seen = seen or {}
    with torch.no_grad():
        return {eam.pair_name(a, b): _audit_pair(eam, a, b, seen.get((a, b))) for a, b in eam.pairs}


def _audit_pair(eam: EmbeddedAtom, a: int, b: int, seen: tuple[float, float] | None) -> dict[str, Any]:
    distance = torch.arange(SHORTEST, eam.cutoff, STEP, dtype=torch.float64, device=eam.e0.device)
    energy, slope = dimer_curve(eam, a, b, distance)
    contact = CONTACT * eam.covalent_sum(a, b)
    inside = distance <= contact
    result: dict[str, Any] = {
        "contact": contact,
        "repulsive": bool((slope[inside] < 0).all()),
        "monotone": bool((eam.pair(a, b, distance[inside])[1] < 0).all()),
        "seen": None if seen is None else list(seen),
    }
    for wall in WALLS:
        at = torch.tensor([wall], dtype=torch.float64, device=distance.device)
        result[f"wall_{wall:.1f}"] = float(dimer_curve(eam, a, b, at)[0])
        result[f"from_{wall:.1f}"] = _origin(wall, seen)
    result["turning_points"] = [
        {
            "r": float(distance[place]),
            "energy": float(energy[place]),
            "kind": "minimum" if slope[place] < 0 else "maximum",
            "from": _origin(float(distance[place]), seen),
        }
        for place in _sign_changes(slope.cpu().numpy())
    ]
    return result


def _sign_changes(slope: np.ndarray) -> np.ndarray:
    """Last places before the slope changes its sign; slopes of the tail that are no more than rounding do not count."""
    places = np.flatnonzero(np.abs(slope) > NOISE)
    return places[:-1][np.diff(np.sign(slope[places])) != 0]


def _origin(distance: float, seen: tuple[float, float] | None) -> str:
    return "data" if seen is not None and seen[0] <= distance <= seen[1] else "prior"
