"""Properties of crystals beside ASE's own code, derivatives of energies, and what symmetry demands."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, fcc111
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.phonons import Phonons
from tests.conftest import quartz

from pretrain_mlip import PretrainedMLIP, fit_eam
from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.potentials.eam.settings import EAMSettings
from pretrain_mlip.report import crystals
from pretrain_mlip.structures.datasets import load_dataset
from pretrain_mlip.validation.properties.elastic import elastic_constants
from pretrain_mlip.validation.properties.eos import equation_of_state
from pretrain_mlip.validation.properties.phonons import phonons
from pretrain_mlip.validation.properties.relaxation import relax, repetitions
from pretrain_mlip.validation.properties.vacancies import vacancies


@pytest.fixture(scope="module")
def silica() -> PretrainedMLIP:
    """A sound potential of a compound, if not an accurate one."""
    frames = [atoms for atoms in load_dataset("silica_mini") if "cristobalite" in atoms.info["config_type"]]
    settings = EAMSettings(starts=1, screening_iterations=10, max_iterations=60)
    return PretrainedMLIP(fit_eam(frames, settings=settings))


def test_relaxation_leaves_no_forces_and_no_stress(silica: PretrainedMLIP) -> None:
    start = quartz()
    start.rattle(0.05, seed=0)
    before = start.copy()
    relaxed = relax(start, silica, cell=True)
    assert start == before
    assert np.abs(relaxed.get_forces()).max() < 1e-3
    assert np.abs(relaxed.get_stress()).max() < 1e-3
    kept = relax(start, silica, cell=False)
    np.testing.assert_array_equal(kept.cell.array, start.cell.array)
    symmetric = relax(quartz(), silica, cell=True, keep_symmetry=True)
    a, b, _, alpha, beta, gamma = symmetric.cell.cellpar()
    assert a == pytest.approx(b, abs=1e-9)
    assert [alpha, beta, gamma] == pytest.approx([90, 90, 120], abs=1e-7)


class Fall(Calculator):
    """Atoms attract each other the more, the closer they are."""

    implemented_properties = ("energy", "forces", "stress")

    def calculate(self, atoms, *_):
        vector = atoms.get_distance(0, 1, mic=True, vector=True)
        r = np.linalg.norm(vector)
        force = 3.0 / r**2 * vector / r
        self.results = {"energy": -3.0 / r, "forces": np.array([force, -force]), "stress": np.zeros(6)}


def test_what_cannot_be_relaxed() -> None:
    pair = Atoms("Cu2", [[0, 0, 0], [2.5, 0, 0]], cell=[9, 9, 9], pbc=True)
    with pytest.raises(ComputationError, match="relaxation: the structure failed: too close"):
        relax(pair, Fall(), cell=False)
    for wrong, message in ((Atoms(pbc=True), "no atoms"), (fcc111("Cu", (1, 1, 2), vacuum=5), "periodic in three")):
        with pytest.raises(InputError, match=message):
            relax(wrong, EMT(), cell=True)


def test_supercells_are_wide_in_every_direction() -> None:
    crystal = bulk("Cu")  # 60° between vectors: heights are smaller than lengths
    repeated = crystal * repetitions(crystal, 10.0)
    heights = 1 / np.linalg.norm(repeated.cell.reciprocal(), axis=1)
    assert heights.min() >= 10.0 - 1e-9
    assert repetitions(repeated, 10.0) == (1, 1, 1)


def test_equation_of_state() -> None:
    found = equation_of_state(bulk("Cu", a=3.7), EMT(), span=0.06, points=9)
    relaxed = relax(bulk("Cu"), EMT(), cell=True)
    assert found["volume"] == pytest.approx(relaxed.cell.volume, rel=1e-3)
    assert found["energy"] == pytest.approx(relaxed.get_potential_energy(), abs=1e-4)
    modulus = elastic_constants(bulk("Cu"), EMT())["bulk_modulus"]["hill"]
    assert found["bulk_modulus"] == pytest.approx(modulus, rel=0.01)
    assert found["single_minimum"]
    assert found["residual"] < 0.1
    scaled = equation_of_state(bulk("Cu", a=3.6), EMT(), relaxed=False, points=5)
    np.testing.assert_allclose(scaled["volumes"], 3.6**3 / 4 * np.linspace(0.9, 1.1, 5))
    drawn = crystals._birch_murnaghan(np.array(found["volumes"]), found)
    residual = 1000 * np.sqrt(np.mean((drawn - found["energies"]) ** 2))
    assert residual == pytest.approx(found["residual"], rel=1e-3)
    with pytest.raises(ComputationError, match="no minimum between"):
        equation_of_state(bulk("Cu", a=3.0), EMT(), relaxed=False)
    with pytest.raises(InputError, match="span 2"):
        equation_of_state(bulk("Cu"), EMT(), span=2.0)


class Rippled(Calculator):
    """An energy of the volume with more than one minimum."""

    implemented_properties = ("energy",)

    def calculate(self, atoms, *_):
        volume = atoms.get_volume() / len(atoms)
        self.results = {"energy": len(atoms) * (0.05 * (volume - 12) ** 2 + 0.03 * np.cos(8 * volume))}


def test_equation_of_state_with_several_minima() -> None:
    copper = bulk("Cu", a=48 ** (1 / 3))
    assert not equation_of_state(copper, Rippled(), relaxed=False, points=41)["single_minimum"]


def energy_of(crystal: Atoms, strain: np.ndarray) -> float:
    strained = crystal.copy()
    strained.set_cell(crystal.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    strained.calc = EMT()
    return strained.get_potential_energy()


def test_elastic_constants_are_second_derivatives_of_the_energy() -> None:
    found = np.array(elastic_constants(bulk("Cu", cubic=True), EMT())["constants"])
    crystal = relax(bulk("Cu", cubic=True), EMT(), cell=True)
    step = 1e-3
    stretch, shear = np.diag([step, 0, 0]), np.array([[0, step, 0], [step, 0, 0], [0, 0, 0]])
    for strain, size, row in ((stretch, step, 0), (shear, 2 * step, 5)):
        ends = energy_of(crystal, strain) + energy_of(crystal, -strain) - 2 * energy_of(crystal, 0 * strain)
        assert ends / size**2 / crystal.cell.volume / units.GPa == pytest.approx(found[row, row], rel=0.01)


def test_moduli_do_not_depend_on_the_axes() -> None:
    straight, turned = bulk("Cu", cubic=True), bulk("Cu", cubic=True)
    turned.rotate(37, (1, 2, 3), rotate_cell=True)
    first, second = (elastic_constants(atoms, EMT()) for atoms in (straight, turned))
    assert not np.allclose(first["constants"], second["constants"], atol=1)
    for key in ("bulk_modulus", "shear_modulus"):
        assert first[key] == pytest.approx(second[key], rel=2e-3)
        assert first[key]["reuss"] <= first[key]["hill"] <= first[key]["voigt"]
    np.testing.assert_allclose(first["eigenvalues"], second["eigenvalues"], rtol=3e-3)
    assert first["stable"]


def test_elastic_constants_of_quartz_are_trigonal(silica: PretrainedMLIP) -> None:
    c = np.array(elastic_constants(quartz(), silica)["constants"])
    size = 0.02 * np.abs(c).max()
    assert c[0, 0] == pytest.approx(c[1, 1], abs=size)
    assert c[3, 3] == pytest.approx(c[4, 4], abs=size)
    assert c[5, 5] == pytest.approx((c[0, 0] - c[0, 1]) / 2, abs=size)
    assert c[0, 3] == pytest.approx(-c[1, 3], abs=size)
    assert c[4, 5] == pytest.approx(c[0, 3], abs=size)
    assert np.abs(c[:4, 4:]).max() < size


def test_phonons_are_those_of_ase(tmp_path) -> None:
    found = phonons(bulk("Cu"), EMT(), length=9.0, mesh=30.0)
    crystal = relax(bulk("Cu"), EMT(), cell=True, fmax=1e-4)
    theirs = Phonons(crystal, EMT(), supercell=tuple(found["supercell"]), delta=0.01, name=str(tmp_path / "phonon"))
    theirs.run()
    theirs.read(acoustic=False)
    ends = {label: row for band in found["bands"] for label, row in zip(
        band["labels"], (band["frequencies"][0], band["frequencies"][-1]), strict=True)}  # fmt: skip
    for label, q in (("Γ", [0, 0, 0]), ("X", [0.5, 0, 0.5]), ("L", [0.5, 0.5, 0.5]), ("W", [0.5, 0.25, 0.75])):
        frequencies = np.sort(np.real(theirs.band_structure(np.array([q]))[0])) / (units._hplanck / units._e * 1e12)
        np.testing.assert_allclose(np.sort(ends[label]), frequencies, atol=0.02, err_msg=label)  # THz, of 8
    assert found["acoustic_at_gamma"] < 0.05
    assert not found["imaginary"]
    assert "Fm-3m" in found["space_group"]
    modes = np.trapezoid(found["dos"]["density"], found["dos"]["frequencies"])
    assert modes == pytest.approx(3, rel=0.02)
    assert found["thermal"]["heat_capacity"][-1] == pytest.approx(3 * units.kB * units.mol / units.J, rel=0.01)
    assert crystals.phonons(found, "Cu").axes[0].get_xticklabels()[0].get_text() == "Γ"


def test_imaginary_modes_are_told() -> None:
    found = phonons(bulk("Cu", "bcc", a=2.85), EMT(), length=9.0, mesh=20.0)
    assert found["imaginary"]
    assert found["lowest"] < -0.5
    assert found["thermal"] is None
    drawn = crystals.phonons(found, "Cu")
    assert "imaginary" in [text.get_text() for text in drawn.axes[0].texts]


class OnASite(EMT):
    """EMT, and a field that drives every atom from the site that it sits on: energies change when all atoms move."""

    def __init__(self, stiffness: float, sites: tuple[int, int, int]) -> None:
        super().__init__()
        self.stiffness, self.sites = stiffness, np.array(sites)

    def calculate(self, atoms, *args):
        super().calculate(atoms, *args)
        place = atoms.get_scaled_positions(wrap=False) * self.sites
        self.results["forces"] += self.stiffness * ((place - np.round(place)) / self.sites) @ atoms.cell.array


def test_modes_that_noise_takes_below_zero_are_not_imaginary() -> None:
    copper = bulk("Cu", a=3.59)
    mass = copper.get_masses()[0]
    stiffness = mass * (2 * np.pi * 0.1 / (1000 * units.fs)) ** 2  # of 0.1 THz
    found = phonons(copper, OnASite(stiffness, repetitions(copper, 9.0)), length=9.0, mesh=20.0, relaxed=False)
    assert found["acoustic_at_gamma"] == pytest.approx(0.1, rel=0.05)
    assert found["lowest"] == pytest.approx(-0.1, rel=0.05)
    assert not found["imaginary"]


def test_phonons_need_forces() -> None:
    with pytest.raises(ComputationError, match="forces on displaced atoms are not finite"):
        phonons(bulk("Cu"), OnASite(np.nan, (1, 1, 1)), length=4.0, relaxed=False)


def test_without_phonopy_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "phonopy", None)
    with pytest.raises(InputError, match=r"need phonopy.*pip install 'pretrain-mlip\[properties\]'"):
        phonons(bulk("Cu"), EMT())
    monkeypatch.setitem(sys.modules, "spglib", None)
    with pytest.raises(InputError, match="need spglib"):
        vacancies(bulk("Cu"), EMT())


def test_vacancies_of_an_element_and_a_compound(silica: PretrainedMLIP) -> None:
    (found,) = vacancies(bulk("Cu"), EMT())
    crystal = relax(bulk("Cu", cubic=True), EMT(), cell=True) * (4, 4, 4)
    crystal.calc = EMT()
    each = crystal.get_potential_energy() / len(crystal)
    del crystal[0]
    unrelaxed = crystal.get_potential_energy() - len(crystal) * each
    assert found["unrelaxed"] == pytest.approx(unrelaxed, abs=2e-3)  # cells of 125 and of 256 atoms
    assert 0 < found["energy"] < found["unrelaxed"]
    sites = vacancies(quartz(), silica, length=8.0, chemical_potentials={"O": -432.0, "Si": -106.0})
    assert {(one["element"], one["multiplicity"]) for one in sites} == {("Si", 3), ("O", 6)}
    shifted = vacancies(quartz(), silica, length=8.0, chemical_potentials={"O": -431.0, "Si": -106.0})
    assert [b["energy"] - a["energy"] for a, b in zip(sites, shifted, strict=True)] == pytest.approx(
        [1.0 if one["element"] == "O" else 0.0 for one in sites], abs=1e-9
    )
    with pytest.raises(InputError, match="chemical potential of O"):
        vacancies(quartz(), silica, chemical_potentials={"Si": -106.0})
    with pytest.raises(InputError, match="of Ge, which the structure does not hold"):
        vacancies(quartz(), silica, chemical_potentials={"Ge": 0.0})
