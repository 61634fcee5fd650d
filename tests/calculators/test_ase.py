"""The ASE calculator: properties, skin, files, refusals."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.calculators.calculator import PropertyNotImplementedError
from ase.md.verlet import VelocityVerlet
from tests.conftest import STRUCTURES, hard_eam, potentials, quartz

from pretrain_mlip import PretrainedMLIP, build_model
from pretrain_mlip.errors import InputError
from pretrain_mlip.potentials.base import Potential
from pretrain_mlip.potentials.checkpoint import save_potential


def test_properties(potential: Potential, structure: Atoms) -> None:
    calculator = PretrainedMLIP(potential)
    structure.calc = calculator
    energy = structure.get_potential_energy()
    assert structure.get_potential_energy(force_consistent=True) == energy
    assert structure.get_potential_energies().sum() == pytest.approx(energy, abs=1e-9)
    assert structure.get_forces().shape == (len(structure), 3)
    if structure.pbc.all():
        assert structure.get_stress().shape == (6,)
    else:
        with pytest.raises((PropertyNotImplementedError, InputError)):
            structure.get_stress()
    assert calculator.potential is potential


def test_skin_changes_nothing(potential: Potential) -> None:
    rng = np.random.default_rng(0)
    atoms = STRUCTURES["triclinic"].copy()
    kept, fresh = PretrainedMLIP(potential, skin=1.0), PretrainedMLIP(potential, skin=0.0)
    lists = set()
    for step in range(25):
        atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
        if step == 12:
            atoms.set_cell(atoms.cell.array * 1.03, scale_atoms=True)
        if step == 18:
            atoms = atoms[1:]
        if step == 20:
            atoms.symbols[0] = "O" if atoms.symbols[0] == "Si" else "Si"
        results = []
        for calculator in (kept, fresh):
            copy = atoms.copy()
            copy.calc = calculator
            results.append((copy.get_potential_energy(), copy.get_forces(), copy.get_stress()))
        lists.add(id(kept._graph))
        for one, other in zip(*results, strict=True):
            assert one == pytest.approx(other, abs=1e-9)
    assert 1 < len(lists) < 20  # the list was rebuilt when it had to be, and kept otherwise


def test_energy_is_conserved() -> None:
    atoms = quartz() * (2, 1, 1)
    atoms.calc = PretrainedMLIP(hard_eam())
    from ase.optimize import BFGS

    BFGS(atoms, logfile=None).run(fmax=0.5, steps=30)
    noise = np.random.default_rng(0).normal(size=(len(atoms), 3))
    atoms.set_momenta(noise * np.sqrt(atoms.get_masses() * units.kB * 300)[:, None])
    energies = []
    md = VelocityVerlet(atoms, 0.5 * units.fs)
    md.attach(lambda: energies.append(atoms.get_total_energy()), interval=10)
    md.run(200)
    # 0.1 ps at 300 K: Verlet's error oscillates with the square of the time step, and does not drift
    assert np.ptp(energies) / len(atoms) < 1e-3


def test_load_and_pickle(potential: Potential, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    save_potential(path, potential)
    atoms = STRUCTURES["quartz"].copy()
    atoms.calc = PretrainedMLIP(potential)
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    for calculator in (PretrainedMLIP.load(path, device="cpu"), pickle.loads(pickle.dumps(atoms.calc))):  # noqa: S301
        copy = atoms.copy()
        copy.calc = calculator
        assert copy.get_potential_energy() == energy
        assert (copy.get_forces() == forces).all()


def test_eam_json_loads(tmp_path: Path) -> None:
    hard_eam().save(tmp_path / "eam.json")
    atoms = quartz()
    atoms.calc = PretrainedMLIP.load(tmp_path / "eam.json")
    other = quartz()
    other.calc = hard_eam().calculator()
    assert atoms.get_potential_energy() == other.get_potential_energy()


def test_single_precision_keeps_the_large_parts_exact() -> None:
    total = potentials()["sum"]
    atoms = STRUCTURES["quartz"].copy()
    atoms.calc = PretrainedMLIP(total, dtype="float64")
    exact = atoms.get_potential_energy(), atoms.get_forces()
    atoms.calc = PretrainedMLIP(total, dtype="float32")
    assert next(total.potentials()[2].parameters()).dtype == torch.float32  # type: ignore[attr-defined]
    # E0s of -1500 eV would cost 1e-4 eV in float32; the network's share of some eV costs 1e-6
    assert atoms.get_potential_energy() == pytest.approx(exact[0], abs=5e-6)
    assert atoms.get_forces() == pytest.approx(exact[1], abs=5e-5)
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda atoms: atoms.symbols.__setitem__(2, "Fe"), "Fe is not supported"),
        (lambda atoms: atoms.positions.__setitem__((4, 1), np.nan), "atom 4"),
        (lambda atoms: atoms.cell.__setitem__((0, 0), np.inf), "cell is not finite"),
    ],
)
def test_refuses_structures(change, message: str) -> None:
    atoms = quartz()
    atoms.calc = PretrainedMLIP(hard_eam())
    atoms.get_potential_energy()  # a list is kept; what is wrong must be seen all the same
    change(atoms)
    with pytest.raises(InputError, match=message):
        atoms.get_potential_energy()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float16"}, "dtype"),
        ({"device": "cuda:77"}, "not available"),
        ({"skin": -1.0}, "skin"),
        ({"memory_limit": float("inf")}, "must be positive and finite"),
        ({"dytpe": "float64", "memorylimit": 2}, "no option dytpe, memorylimit; those of ASE are atoms, directory"),
    ],
)
def test_refuses_options(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        PretrainedMLIP(hard_eam(), **options)


def test_a_file_is_not_a_potential() -> None:
    with pytest.raises(InputError, match=r"got str.*PretrainedMLIP\.load"):
        PretrainedMLIP("model.pt")  # type: ignore[arg-type]


def test_a_failed_call_leaves_no_results() -> None:
    calculator = PretrainedMLIP(hard_eam())
    calculator.calculate(STRUCTURES["quartz"])
    strange = STRUCTURES["quartz"].copy()
    strange.symbols[0] = "Fe"
    with pytest.raises(InputError, match="element Fe"):
        calculator.calculate(strange)
    strange.calc = calculator
    with pytest.raises(InputError, match="element Fe"):
        strange.get_potential_energy()


def test_precision_of_products_stays_unless_given() -> None:
    network = build_model("cgcnn", ["O", "Si"])
    PretrainedMLIP(network, products="bfloat16")
    PretrainedMLIP(network)
    assert network.products == "bfloat16"
    with pytest.raises(InputError, match="products 'int8'"):
        PretrainedMLIP(network, products="int8")  # type: ignore[arg-type]


def test_refuses_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        PretrainedMLIP.load(tmp_path / "absent.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(InputError, match=r"text\.pt: not a readable checkpoint"):
        PretrainedMLIP.load(tmp_path / "text.pt")
    torch.save({"weights": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(InputError, match="not a checkpoint of pretrain-mlip"):
        PretrainedMLIP.load(tmp_path / "other.pt")
    torch.save(build_model("cgcnn", ["O"]), tmp_path / "pickle.pt")  # a pickled class would run code
    with pytest.raises(InputError, match=r"pickle\.pt: holds an object of class .*\.CGCNN, which is code and is not"):
        PretrainedMLIP.load(tmp_path / "pickle.pt")
    for content in (b"", b"\x80"):
        (tmp_path / "odd.pt").write_bytes(content)
        with pytest.raises(InputError, match=r"odd\.pt: not a readable checkpoint"):
            PretrainedMLIP.load(tmp_path / "odd.pt")
    save_potential(tmp_path / "good.pt", hard_eam())
    whole = (tmp_path / "good.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cut\.pt: not a readable checkpoint"):
        PretrainedMLIP.load(tmp_path / "cut.pt")


def _as_without_a_list(atoms: Atoms, kept: PretrainedMLIP) -> float:
    """Energy by a calculator that keeps its list of neighbours, equal to that of a new one."""
    copy, again = atoms.copy(), atoms.copy()
    copy.calc, again.calc = kept, PretrainedMLIP(hard_eam(), skin=0.0)
    assert copy.get_potential_energy() == pytest.approx(again.get_potential_energy(), rel=0, abs=1e-9)
    return copy.get_potential_energy()


def test_two_atoms_that_approach_each_other_use_up_the_skin_twice_as_fast() -> None:
    kept = PretrainedMLIP(hard_eam(), skin=2.0)
    pair = Atoms("SiO", [[0, 0, 0], [kept.potential.cutoff + 2.1, 0, 0]])
    apart = _as_without_a_list(pair, kept)
    pair.positions += [[1.9, 0, 0], [-1.9, 0, 0]]
    assert abs(_as_without_a_list(pair, kept) - apart) > 1e-3


def test_other_boundaries_need_another_list() -> None:
    kept, atoms = PretrainedMLIP(hard_eam()), STRUCTURES["quartz"].copy()
    bulk = _as_without_a_list(atoms, kept)
    atoms.pbc = [True, True, False]
    assert abs(_as_without_a_list(atoms, kept) - bulk) > 1e-3


def test_stress_of_a_slab_says_why_there_is_none() -> None:
    atoms = STRUCTURES["slab"].copy()
    atoms.calc = PretrainedMLIP(hard_eam())
    with pytest.raises(InputError, match="periodic in three"):
        atoms.get_stress()


def test_options_survive_pickling() -> None:
    given = PretrainedMLIP(build_model("cgcnn", ["O", "Si"]), products="bfloat16", memory_limit=2.0)
    found = pickle.loads(pickle.dumps(given)).potential  # noqa: S301  # our own
    assert (found.products, found.memory_limit) == ("bfloat16", 2.0)
