"""Reading setfl tables: round trips and published layouts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from tests.conftest import STRUCTURES, hard_eam
from tests.eam_structures import random_eam
from tests.lammps_oracle import published
from tests.setfl_files import SMALL, small

from pretrain_mlip import EAM, PretrainedMLIP
from pretrain_mlip.calculators.batched import predict
from pretrain_mlip.errors import InputError
from pretrain_mlip.potentials.checkpoint import load_potential, save_potential
from pretrain_mlip.potentials.eam.setfl import as_tables
from pretrain_mlip.potentials.eam.tabulated import TabulatedEAM

FS_ADDITION = "1 1 1 1 1\n"


def as_fs(text: str) -> str:
    """With a second density for each element."""
    return text.replace("13 26.98", FS_ADDITION + "13 26.98").replace("10 1.1e+1", FS_ADDITION + "10 1.1e+1")


def tables_of(eam: TabulatedEAM) -> dict[str, torch.Tensor]:
    return dict(eam.state_dict())


def assert_equal(first: TabulatedEAM, second: TabulatedEAM) -> None:
    assert first.config() == second.config()
    for name, value in tables_of(first).items():
        assert torch.equal(value, tables_of(second)[name]), name


def test_small_file(tmp_path: Path) -> None:
    path = small(tmp_path)
    eam = EAM.from_setfl(path)
    assert (eam.elements, eam.cutoff, eam.form) == (("Ni", "Al"), 4.0, "alloy")
    assert (eam.points_rho, eam.step_rho, eam.points_r, eam.step_r) == (6, 0.5, 5, 1.0)
    assert eam.embedding_table[0].tolist() == [-0.1, -1, -2, -3, -4, -5]
    assert eam.density_table.tolist() == [[4, 3, 2, 1, 0], [8, 6, 4, 2, 0]]
    assert eam.pairs == [(0, 0), (0, 1), (1, 1)]
    assert eam.pair_table[:, 0].tolist() == [10, 20, 30]
    assert eam.pair_table[0].tolist() == [10, 11, 12, 13, 0]
    assert eam.report["source"] == "small.eam.alloy"
    assert eam.report["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert eam.report["comments"] == ["first comment", "second # comment", "third"]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.rstrip("\n"),
        lambda text: text.replace(" ", "   ").replace("2   Ni", "\t2   Ni"),
        lambda text: text + "\n\n",
        lambda text: text.replace("4 3 2\n1 0\n", "4\n3\n2\n1\n0\n"),
        lambda text: text.replace("10 1.1e+1", "1.0d1 1.1E01"),
        lambda text: text.replace("third", ""),
    ],
    ids=["windows", "no last newline", "blanks", "trailing lines", "a value a line", "fortran", "empty comment"],
)
def test_layouts_that_mean_the_same(change: Callable[[str], str], tmp_path: Path) -> None:
    assert_equal(EAM.from_setfl(small(tmp_path, change(SMALL))), EAM.from_setfl(small(tmp_path)))


def test_old_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.eam.alloy"
    path.write_bytes(SMALL.replace("first", "Nöhring").encode("latin-1"))
    assert EAM.from_setfl(path).report["comments"][0] == "Nöhring comment"


def test_isolated_atoms_have_the_energy_of_the_table(tmp_path: Path) -> None:
    eam = EAM.from_setfl(small(tmp_path))
    (nickel,) = predict(eam, [Atoms("Ni")])
    assert nickel.energy == -0.1
    assert eam.reference_energies() == {"Ni": 0.0, "Al": 0.0}


def test_subsets_and_orders(tmp_path: Path) -> None:
    path = tmp_path / "four.eam.fs"
    elements = ["Zr", "Al", "Ni", "Cu"]
    random_eam(elements, "fs", seed=3).write_setfl(path, points_r=3001)
    everything, two = EAM.from_setfl(path), EAM.from_setfl(path, ["Cu", "Al"])
    assert two.elements == ("Cu", "Al")
    atoms = STRUCTURES["quartz"].copy()
    atoms.symbols[:] = ["Cu", "Al", "Al"] * 3
    first, second = predict(everything, [atoms])[0], predict(two, [atoms])[0]
    assert first.energy == pytest.approx(second.energy, abs=1e-12)
    assert first.forces == pytest.approx(second.forces, abs=1e-12)
    with pytest.raises(InputError, match=r"has no O, Fe; it has Zr, Al, Ni, Cu"):
        EAM.from_setfl(path, ["Cu", "O", "Fe"])
    for elements in ([], ["Cu", "Cu"]):
        with pytest.raises(InputError, match="distinct chemical symbols"):
            EAM.from_setfl(path, elements)


@pytest.mark.parametrize("form", ["alloy", "fs"])
def test_read_write_read(form: str, tmp_path: Path) -> None:
    eam = hard_eam(form)
    first, second = tmp_path / f"first.eam.{form}", tmp_path / f"second.eam.{form}"
    eam.write_setfl(first)
    tables = EAM.from_setfl(first)
    expected = as_tables(eam)
    expected.e0.zero_()  # the file holds them in a comment only
    assert_equal(tables, expected)
    tables.write_setfl(second)
    assert_equal(EAM.from_setfl(second), tables)
    assert "first.eam." in EAM.from_setfl(second).report["comments"][1]
    with pytest.raises(InputError, match=r"first.eam.* is made of tables"):
        tables.write_setfl(second, points_r=500)


def test_what_was_published_is_kept_when_written_again(tmp_path: Path) -> None:
    again = tmp_path / "again.eam.alloy"
    EAM.from_setfl(small(tmp_path)).write_setfl(again)
    assert_equal(EAM.from_setfl(again), EAM.from_setfl(small(tmp_path)))
    text = again.read_text()
    assert "first comment / second # comment / third" in text
    assert "\n28 58.71 3.52 fcc\n" in text  # the mass is the file's, the number is right


@pytest.mark.parametrize("form", ["alloy", "fs"])
def test_json_checkpoint_and_calculator(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.eam.{form}"
    hard_eam(form).write_setfl(path, points_r=1001, points_rho=1001)
    eam = load_potential(path)
    assert isinstance(eam, TabulatedEAM)
    eam.save(tmp_path / "eam.json")
    save_potential(tmp_path / "eam.pt", eam)
    from_json, from_checkpoint = load_potential(tmp_path / "eam.json"), load_potential(tmp_path / "eam.pt")
    assert isinstance(from_json, TabulatedEAM)
    assert isinstance(from_checkpoint, TabulatedEAM)
    assert_equal(from_json, eam)
    assert_equal(from_checkpoint, eam)
    assert from_json.report == eam.report
    atoms = STRUCTURES["slab"].copy()
    atoms.calc = PretrainedMLIP.load(path, device="cpu")
    (labels,) = predict(eam, [atoms])
    assert atoms.get_potential_energy() == pytest.approx(labels.energy, abs=1e-12)
    damaged = json.loads((tmp_path / "eam.json").read_text())
    del damaged["parameters"]["pair_table"][0][0]
    (tmp_path / "damaged.json").write_text(json.dumps(damaged))
    with pytest.raises(InputError, match="damaged"):
        load_potential(tmp_path / "damaged.json")


@pytest.mark.parametrize("name", ["quartz", "triclinic", "slab", "wire"])
@pytest.mark.parametrize("form", ["alloy", "fs"])
def test_forces_of_tables_are_derivatives(name: str, form: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.eam.{form}"
    hard_eam(form).write_setfl(path)
    eam, atoms, step = EAM.from_setfl(path), STRUCTURES[name].copy(), 1e-4
    moved = []
    for sign in (1, -1):
        copy = atoms.copy()
        copy.positions[0] += sign * step * np.array([0.6, -0.48, 0.64])
        moved.append(predict(eam, [copy])[0].energy)
    (labels,) = predict(eam, [atoms])
    assert labels.forces is not None
    assert labels.forces[0] @ [0.6, -0.48, 0.64] == pytest.approx((moved[1] - moved[0]) / (2 * step), abs=1e-5)


@pytest.mark.parametrize("name", ["a.eam.alloy", "a.setfl"])
def test_one_element_is_the_same_in_both_forms(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    random_eam(["Ni"], "alloy", seed=1).write_setfl(path)
    (tmp_path / "a.eam.fs").write_text(path.read_text())
    by_name = EAM.from_setfl(tmp_path / "a.eam.fs")
    assert by_name.form == "fs"
    assert torch.equal(by_name.density_table[0], EAM.from_setfl(path).density_table)


def test_form_by_content_where_the_name_says_nothing(tmp_path: Path) -> None:
    assert EAM.from_setfl(small(tmp_path, SMALL, "a.setfl")).form == "alloy"
    fs = EAM.from_setfl(small(tmp_path, as_fs(SMALL), "b.setfl"))
    assert fs.form == "fs"
    assert fs.density_table[0, 1].tolist() == [1, 1, 1, 1, 1]


def test_name_and_content_disagree(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds eam/fs tables.*rename it to \*.eam.fs"):
        EAM.from_setfl(small(tmp_path, as_fs(SMALL), "a.eam.alloy"))
    with pytest.raises(InputError, match=r"holds eam/alloy tables.*rename it to \*.eam.alloy"):
        EAM.from_setfl(small(tmp_path, SMALL, "a.eam.fs"))


def test_all_that_lammps_ships(tmp_path: Path) -> None:
    folder = published("Cu_mishin1.eam.alloy").parent
    paths = [*folder.glob("*.eam.alloy"), *folder.glob("*.eam.fs")]
    assert len(paths) > 15
    for path in paths:
        eam = EAM.from_setfl(path)
        assert path.name.endswith(eam.form)
        again = tmp_path / path.name
        eam.write_setfl(again)
        assert_equal(EAM.from_setfl(again), eam)
    for path in folder.glob("*_u3.eam"):
        with pytest.raises(InputError, match="funcfl"):
            load_potential(path)
