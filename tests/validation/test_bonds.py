"""One bond among its neighbours: what is known of smooth potentials, of jumps and of holes."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from tests.conftest import STRUCTURES, hard_eam, quartz

from pretrain_mlip import PretrainedMLIP
from pretrain_mlip.errors import InputError
from pretrain_mlip.report import curves
from pretrain_mlip.validation.bonds import bond_metrics, scan_bonds


class Springs(Calculator):
    """Each atom on a spring to where it was, and ``more`` on the distance that one has moved."""

    implemented_properties = ("energy", "forces")

    def __init__(self, rest: Atoms, more=lambda _: 0.0) -> None:
        super().__init__()
        self.rest, self.more = rest.positions.copy(), more

    def calculate(self, atoms, *_):
        moves = atoms.positions - self.rest
        distance = np.linalg.norm(moves, axis=1).max()
        self.results = {"energy": 0.5 * np.sum(moves**2) + self.more(distance), "forces": -moves}


CRYSTAL = bulk("NaCl", "rocksalt", a=5.6, cubic=True) * (2, 2, 2)


def test_springs_are_as_they_are() -> None:
    found = scan_bonds(Springs(CRYSTAL), CRYSTAL, points=61)
    assert {pair: round(one["length"], 3) for pair, one in found.items()} == {
        "Cl-Cl": 3.96,
        "Cl-Na": 2.8,
        "Na-Na": 3.96,
    }
    for pair, curve in found.items():
        r = np.array(curve["r"])
        assert (r[0], r[-1]) == pytest.approx((curve["length"] / 2, 2 * curve["length"]))
        np.testing.assert_allclose(curve["energy"], 0.5 * (r - curve["length"]) ** 2, atol=1e-12)
        np.testing.assert_allclose(curve["force"], curve["length"] - r, atol=1e-12)
        judged = bond_metrics({pair: curve})[pair]
        assert judged["jump"] < 1e-12
        assert (judged["minima"], judged["repels"], judged["finite"]) == (0, True, True)


def test_jumps_holes_and_what_is_not_finite() -> None:
    def judged(more) -> dict:
        return bond_metrics(scan_bonds(Springs(CRYSTAL, more), CRYSTAL))["Cl-Na"]

    assert judged(lambda moved: 0.3 * (moved > 1.0))["jump"] == pytest.approx(0.3, abs=0.05)
    hole = judged(lambda moved: -9.0 * np.exp(-((moved - 1.2) ** 2) / 0.02))
    assert hole["minima"] == 2  # on either side
    assert hole["lowest"] == pytest.approx(-9 + 0.5 * 1.2**2, abs=0.1)
    shallow = judged(lambda moved: -1e-4 * np.exp(-((moved - 1.2) ** 2) / 1e-5))
    assert shallow["minima"] == 0
    broken = judged(lambda moved: np.nan if moved > 1.3 else 0.0)
    assert not broken["finite"]
    assert broken["lowest"] == 0.0


def test_forces_are_derivatives_of_energies() -> None:
    for calculator, atoms in ((EMT(), bulk("Cu")), (PretrainedMLIP(hard_eam()), quartz())):
        for curve in scan_bonds(calculator, atoms, shortest=0.8, longest=1.3, points=301).values():
            r, energy, force = (np.array(curve[key]) for key in ("r", "energy", "force"))
            slope = (energy[2:] - energy[:-2]) / (r[2:] - r[:-2])
            np.testing.assert_allclose(-slope, force[1:-1], atol=2e-3 * max(1.0, np.abs(force).max()))
            assert np.interp(curve["length"], r, energy) == pytest.approx(0.0, abs=1e-3)


def test_a_picture_of_each_pair() -> None:
    found = scan_bonds(PretrainedMLIP(hard_eam()), quartz(), points=11)
    drawn = curves.bonds({"eam": found, "vanilla": found})
    assert [axes.get_title(loc="left") for axes in drawn.axes] == ["O-O", "O-Si", "Si-Si"]


def test_what_has_no_bonds_is_refused() -> None:
    for atoms, options, message in (
        (STRUCTURES["slab"], {}, "periodic in three"),
        (Atoms("Ar", cell=[20] * 3, pbc=True), {}, "no two atoms"),
        (CRYSTAL, {"shortest": 1.5}, "shortest < 1 < longest"),
    ):
        with pytest.raises(InputError, match=message):
            scan_bonds(EMT(), atoms, **options)
