"""One setfl file, four codes: ours, LAMMPS, ASE, matscipy. LAMMPS is the arbiter.

    python -m pytest tests/potentials/test_eam_oracles.py -s

prints the largest differences from LAMMPS, which docs/numbers.md quotes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators import eam as ase_eam
from matscipy.calculators import eam as matscipy_eam
from tests.eam_structures import LOWEST, random_eam, random_structures
from tests.lammps_oracle import Found, Lammps, published, running

from pretrain_mlip import EAM
from pretrain_mlip.calculators.batched import predict
from pretrain_mlip.potentials.base import Potential

# Energy per atom (eV), forces (eV/Å), stress (eV/Å³) between codes that interpolate the same samples differently
BETWEEN_CODES = np.array([1e-8, 1e-6, 1e-8])
# The same on the default grid. The ZBL wall ends at 0.70 of the covalent sum with a jump in its third derivative of the
# order of 1000 eV/Å³. Across it, splines (ASE, matscipy) and five-point slopes (LAMMPS) of samples h = 0.002 Å apart
# differ by some h²/40 of that, summed over the few pairs of an atom that happen to be there; so only 40001 points,
# h = 0.00015 Å, bring forces that close between any two codes.
COARSE = np.array([1e-8, 1e-3, 2e-6])
FINE = 40001
# Between codes that interpolate alike: rounding, by the largest energy or force in a structure
ROUNDING = 1e-12
ASE_ATOMS = 40  # ASE needs a second for so many
FOUR = ["Zr", "Al", "Ni", "Cu"]
POTENTIALS = [
    pytest.param(["Ni"], "alloy", id="one-alloy"),
    pytest.param(["O", "Si"], "alloy", id="two-alloy"),
    pytest.param(["O", "Si"], "fs", id="two-fs"),
    pytest.param(FOUR, "alloy", id="four-alloy"),
    pytest.param(FOUR, "fs", id="four-fs"),
]
PUBLISHED = {
    "Cu_mishin1.eam.alloy": (["Cu"], None),
    "NiAlH_jea.eam.alloy": (["Ni", "Al"], ["Al", "Ni"]),
    "NiAlH_jea.eam.fs": (["Ni", "Al", "H"], None),
    "Al_mm.eam.fs": (["Al"], None),
    "AlCu.eam.alloy": (["Al", "Cu"], None),
    "FeP_mm.eam.fs": (["Fe", "P"], ["P", "Fe"]),
}


@pytest.fixture(scope="module")
def lammps() -> Iterator[Lammps]:
    with running() as engine:
        yield engine


class Largest:
    """Asserts and keeps the largest differences from LAMMPS."""

    def __init__(self, title: str) -> None:
        self.title, self.off = title, {}

    def check(self, code: str, structure: str, found: Found, expected: Found, limits: np.ndarray | float) -> None:
        off = differences(found, expected)
        assert (off < limits).all(), (structure, code, off)
        self.off[code] = np.maximum(self.off.get(code, 0.0), off)

    def show(self) -> None:
        for code, off in self.off.items():
            sizes = f"{off[0]:.0e} eV/atom {off[1]:.0e} eV/Å {off[2]:.0e} eV/Å³"
            print(f"\n{self.title}: {code}: {sizes}", end="")  # noqa: T201  # what -s is for


def rounding(expected: Found) -> float:
    count = len(expected.forces)
    return ROUNDING * (1.0 + abs(expected.energy) / count + np.abs(expected.forces).max())


def differences(found: Found, expected: Found) -> np.ndarray:
    return np.array(
        [
            abs(found.energy - expected.energy) / len(expected.forces),
            np.abs(found.forces - expected.forces).max(),
            np.abs(found.stress - expected.stress).max(),
        ]
    )


def of_ours(potential: Potential, atoms: Atoms) -> Found:
    (labels,) = predict(potential, [atoms])
    assert labels.energy is not None
    assert labels.forces is not None
    assert labels.stress is not None
    return Found(labels.energy, labels.forces, labels.stress)


def of_ase(calculator: object, atoms: Atoms) -> Found:
    atoms = atoms.copy()
    atoms.calc = calculator
    return Found(atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress())


@pytest.mark.parametrize(("elements", "form"), POTENTIALS)
def test_tables_on_our_nodes_are_the_potential(elements: list[str], form: str, lammps: Lammps, tmp_path: Path) -> None:
    eam = random_eam(elements, form, seed=len(elements))
    path = tmp_path / f"random.eam.{form}"
    eam.write_setfl(path)
    tables, by_matscipy = EAM.from_setfl(path), matscipy_eam.EAM(str(path), kind=f"eam/{form}")
    largest = Largest(f"{form} {'-'.join(elements)}, default grid")
    for name, atoms in random_structures(elements, seed=3 * len(elements)).items():
        expected = lammps.calculate(atoms, path, eam.elements)
        largest.check("ours, analytic", name, of_ours(eam, atoms), expected, BETWEEN_CODES)
        largest.check("ours, tables", name, of_ours(tables, atoms), expected, rounding(expected))
        largest.check("matscipy", name, of_ase(by_matscipy, atoms), expected, COARSE)
    largest.show()


@pytest.mark.parametrize(("elements", "form"), POTENTIALS)
def test_four_codes_agree_on_fine_tables(elements: list[str], form: str, lammps: Lammps, tmp_path: Path) -> None:
    eam = random_eam(elements, form, seed=len(elements))
    path = tmp_path / f"random.eam.{form}"
    eam.write_setfl(path, points_r=FINE)
    tables, by_matscipy = EAM.from_setfl(path), matscipy_eam.EAM(str(path), kind=f"eam/{form}")
    by_ase = ase_eam.EAM(potential=str(path))
    largest = Largest(f"{form} {'-'.join(elements)}, {FINE} points in r")
    for name, atoms in random_structures(elements, seed=3 * len(elements)).items():
        expected = lammps.calculate(atoms, path, eam.elements)
        largest.check("ours, tables", name, of_ours(tables, atoms), expected, rounding(expected))
        largest.check("matscipy", name, of_ase(by_matscipy, atoms), expected, BETWEEN_CODES)
        if len(atoms) <= ASE_ATOMS:
            largest.check("ASE", name, of_ase(by_ase, atoms), expected, BETWEEN_CODES)
    largest.show()


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_potentials_are_those_of_lammps(name: str, lammps: Lammps) -> None:
    path = published(name)
    elements, order = PUBLISHED[name]
    potential = EAM.from_setfl(path, order)
    structures = list(random_structures(elements, seed=1).values())
    gas = Atoms(elements[0] * 2, positions=[[1, 1, 1], [1, 1, 1 + 0.9 * potential.cutoff]], cell=[20.0] * 3, pbc=True)
    alone = Atoms(elements[0], cell=[20.0] * 3, pbc=True)
    dense = bulk(elements[-1], "fcc", a=2.6)  # far beyond the last density of some tables, where F is continued
    largest = Largest(name)
    for atoms in [*structures, gas, alone, surface(elements[0])]:
        expected = lammps.calculate(atoms, path, elements)
        largest.check("ours", str(atoms), of_ours(potential, atoms), expected, rounding(expected))
    largest.show()
    expected = lammps.calculate(dense, path, elements)  # up to 1e8 eV/atom, of which 1e-12 is much
    assert (differences(of_ours(potential, dense), expected) < rounding(expected)).all()


def surface(symbol: str) -> Atoms:
    slab = fcc111(symbol, (2, 2, 4), a=4.0, vacuum=4.0)
    slab.pbc = True
    return slab


def test_spline_codes_differ_from_lammps_where_tables_are_coarse(lammps: Lammps) -> None:
    """Why matscipy (and ASE) are compared on our tables alone: 1000 points in rho up to 1039, of a square root."""
    path = published("AlCu.eam.alloy")
    atoms = random_structures(["Al", "Cu"], seed=1)["rattled crystal"]
    expected = lammps.calculate(atoms, path, ["Al", "Cu"])
    splines = differences(of_ase(matscipy_eam.EAM(str(path), kind="eam/alloy"), atoms), expected)
    assert 1e-7 < splines[0] < 1e-2
    assert (differences(of_ours(EAM.from_setfl(path), atoms), expected) < rounding(expected)).all()


def test_nearly_isolated_atoms(lammps: Lammps, tmp_path: Path) -> None:
    """The one place where our tables and our functions differ by more than 1e-8 eV: densities below one step."""
    eam = random_eam(["Ni"], "alloy", seed=1)
    path = tmp_path / "random.eam.alloy"
    eam.write_setfl(path)
    k1 = float(eam.log_root.exp())
    worst = 0.0
    for distance in np.linspace(0.7, 1.0, 61) * eam.cutoff:
        atoms = Atoms("Ni2", positions=[[1, 1, 1], [1 + distance, 1, 1]], cell=[20.0, 14.0, 14.0], pbc=True)
        off = differences(of_ours(eam, atoms), lammps.calculate(atoms, path, eam.elements))
        density = float(eam.density(0, 0, torch.tensor([distance], dtype=torch.float64))[0])
        assert off[0] < (1e-6 * k1 if density < LOWEST else 1e-8)
        worst = max(worst, off[0])
    assert worst > 1e-8  # otherwise LOWEST is not needed any more
