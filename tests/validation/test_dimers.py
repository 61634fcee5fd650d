from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.lj import LennardJones
from ase.calculators.morse import MorsePotential
from ase.data import covalent_radii

from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.validation.dimers import dimer_metrics, scan_dimers
from pretrain_mlip.validation.errors import predict_with


class PairCurve(Calculator):
    """Energy as a function of the distance, forces by central differences."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, curve) -> None:
        super().__init__()
        self.curve = curve

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        assert not self.atoms.pbc.any()
        assert self.atoms.cell.rank == 0
        vector = self.atoms.positions[1] - self.atoms.positions[0]
        r = np.linalg.norm(vector)
        slope = (self.curve(r + 1e-4) - self.curve(r - 1e-4)) / 2e-4
        force = -slope * vector / r
        self.results = {"energy": self.curve(r), "forces": np.array([-force, force])}


def test_morse_curve_is_reproduced():
    depth, r0, rho0 = 0.8, 2.5, 5.0
    calculator = MorsePotential(epsilon=depth, r0=r0, rho0=rho0, rcut1=9.0, rcut2=10.0)
    scan = scan_dimers(calculator, ["Cu"], r_min=1.5, points=66)["Cu-Cu"]  # steps of 0.1 Å hit r0
    r, energy, force = (np.array(scan[key]) for key in ("r", "energy", "force"))
    decay = np.exp(-rho0 * (r / r0 - 1))
    expected = depth * (decay**2 - 2 * decay)
    np.testing.assert_allclose(energy, expected - expected[-1], atol=1e-9)
    np.testing.assert_allclose(force, 2 * depth * rho0 / r0 * (decay**2 - decay), atol=1e-9)
    metrics = dimer_metrics({"Cu-Cu": scan})["Cu-Cu"]
    assert metrics["well_distance"] == pytest.approx(r0)
    assert metrics["well_depth"] == pytest.approx(depth, abs=1e-4)  # zero is at 8 Å, where 3e-5 eV are left
    assert metrics["wall_0.5"] is None  # outside of the scan


def test_every_pair_once_in_sorted_order():
    scans = scan_dimers(LennardJones(sigma=2.0, rc=7.0), ["Si", "O", "Si"], points=5)
    assert list(scans) == ["O-O", "O-Si", "Si-Si"]
    assert scans["O-Si"]["energy"][-1] == 0.0


def test_a_sound_wall_passes():
    scans = scan_dimers(LennardJones(sigma=2.0, rc=7.0), ["Si"])
    metrics = dimer_metrics(scans)["Si-Si"]
    assert metrics["contact"] == pytest.approx(0.6 * 2 * covalent_radii[14])
    assert metrics["repulsive_at_contact"]
    assert metrics["turning_points"] == 0
    assert metrics["wall_0.5"] > metrics["wall_1.0"] > 1000
    assert metrics["finite"]


def test_a_wall_with_a_hole_is_caught():
    def hole(r: float) -> float:
        return 10.0 * np.exp(-r) - 5.0 * np.exp(-(((r - 0.9) / 0.1) ** 2))

    metrics = dimer_metrics(scan_dimers(PairCurve(hole), ["Si"], points=400))["Si-Si"]
    assert not metrics["repulsive_at_contact"]
    assert metrics["turning_points"] == 2  # into the hole and out of it


def test_attraction_at_contact_is_caught():
    metrics = dimer_metrics(scan_dimers(PairCurve(lambda r: -np.exp(-r)), ["Si"]))["Si-Si"]
    assert not metrics["repulsive_at_contact"]
    assert metrics["turning_points"] == 0
    assert metrics["well_distance"] == pytest.approx(0.4)


def test_points_that_cannot_be_computed_are_nan_and_reported():
    def broken(r: float) -> float:
        if r < 0.6:
            raise ComputationError("overflow")
        return np.nan if r < 0.8 else 1 / r

    scans = scan_dimers(PairCurve(broken), ["Si"])
    metrics = dimer_metrics(scans)["Si-Si"]
    assert not metrics["finite"]
    assert metrics["wall_0.5"] is None
    assert metrics["wall_1.0"] == pytest.approx(1 - 1 / 8, abs=1e-3)
    assert np.isnan(scans["Si-Si"]["energy"][0])


def test_wrong_arguments_are_refused():
    with pytest.raises(InputError, match="Xx"):
        scan_dimers(LennardJones(), ["Xx"])
    with pytest.raises(InputError, match="r_min"):
        scan_dimers(LennardJones(), ["Si"], r_min=3.0, r_max=2.0)


def test_a_function_of_structures_gives_the_same_as_a_calculator() -> None:
    calculator = LennardJones(sigma=2.0, epsilon=0.3, rc=7.0, smooth=True)
    one = scan_dimers(calculator, ["O", "Si"], points=12)
    other = scan_dimers(partial(predict_with, calculator), ["O", "Si"], points=12)
    assert one == other
