"""Measures of curves: a simple well has the best values, and each fault shows in the measure that is there for it."""

from __future__ import annotations

import numpy as np
import pytest
from ase.calculators.morse import MorsePotential

from pretrain_mlip.validation.arena import TITLES, arena_metrics, arena_scan

R = np.linspace(1.0, 6.0, 501)


def curve(energy: np.ndarray, force: np.ndarray | None = None) -> dict[str, list[float]]:
    force = -np.gradient(energy, R) if force is None else force
    return {"r": R.tolist(), "energy": energy.tolist(), "force": force.tolist()}


def well() -> np.ndarray:
    decay = np.exp(-2.0 * (R - 2.0))
    return decay**2 - 2 * decay


def test_a_simple_well() -> None:
    found = arena_metrics(curve(well()))
    assert set(found) == set(TITLES)
    assert found["conservation_deviation"] == 0
    assert [found[f"spearman_{name}"] for name in ("repulsion_energy", "descending_force")] == pytest.approx([-1, -1])
    assert [found[f"spearman_{name}"] for name in ("attraction_energy", "ascending_force")] == pytest.approx([1, 1])
    assert found["tortuosity"] == pytest.approx(1)
    assert found["force_flips"] == 1
    assert found["energy_jump"] < 0.01  # the two steps beside the minimum


def test_forces_of_another_potential_are_not_conserved() -> None:
    energy = well()
    found = arena_metrics(curve(energy, -np.gradient(energy, R) + 0.3))
    assert found["conservation_deviation"] == pytest.approx(0.3)


def test_by_hand() -> None:
    """Down 1, up 0.5, down 2, up 3: three reversals of 1.5, 2.5 and 5."""
    found = arena_metrics({"r": [1, 2, 3, 4, 5], "energy": [0, -1, -0.5, -2.5, 0.5], "force": [1, -1, 2, 0.001, -3]})
    assert found["energy_jump"] == pytest.approx(1.5 + 2.5 + 5)
    assert found["tortuosity"] == pytest.approx(6.5 / (2.5 + 3))
    assert found["force_flips"] == 3  # 0.001 is no force
    assert found["force_jump"] == pytest.approx(2 + 3 + 3 + 1.999)
    assert found["spearman_repulsion_energy"] == pytest.approx(-0.8)
    assert found["spearman_attraction_energy"] is None
    assert found["spearman_descending_force"] == pytest.approx(-0.5)


def test_a_bump_and_a_step_are_seen() -> None:
    bumpy = arena_metrics(curve(well() + 0.3 * np.exp(-(((R - 3.5) / 0.1) ** 2))))
    assert bumpy["force_flips"] == 3
    assert bumpy["tortuosity"] > 1.01  # the wall is 39 eV high
    stepped = arena_metrics(curve(well() - 0.2 * (R > 3.0)))
    assert stepped["energy_jump"] > 0.2


def test_a_curve_with_holes_has_no_measures() -> None:
    energy = well()
    energy[3] = np.nan
    assert set(arena_metrics(curve(energy)).values()) == {None}


def test_a_flat_curve_has_those_that_mean_something() -> None:
    found = arena_metrics(curve(np.zeros_like(R)))
    assert found["tortuosity"] is None
    assert found["spearman_repulsion_energy"] is None
    assert (found["conservation_deviation"], found["force_flips"], found["energy_jump"]) == (0, 0, 0)


def test_range_and_steps_are_those_of_the_arena() -> None:
    scanned = arena_scan(MorsePotential(epsilon=0.8, r0=2.5, rho0=5.0, rcut1=9.0, rcut2=10.0), ("Cu", "Cu"))
    assert scanned["r"][0] == pytest.approx(0.9 * 1.32)
    assert scanned["r"][-1] == pytest.approx(3.1 * 2.38)
    assert np.diff(scanned["r"]).mean() == pytest.approx(0.01, rel=0.01)
    found = arena_metrics(scanned)
    assert found["conservation_deviation"] < 0.05  # differences over 0.01 Å on a steep wall
    assert found["force_flips"] == 1
