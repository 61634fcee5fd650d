"""``lammps`` and what belongs to it, as their users call them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ase import Atoms
from ase.io import write
from tests.conftest import STRUCTURES, hard_eam
from tests.export_potentials import network
from tests.lammps_environment import with_plugin

from pretrain_mlip.deploy.lammps.runs import find_program, run_lammps
from pretrain_mlip.potentials.checkpoint import save_potential


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with with_plugin(tmp_path_factory) as folder:
        yield folder


@pytest.fixture
def work(plugin: Path, tmp_path: Path) -> Path:
    assert plugin.is_dir()
    save_potential(tmp_path / "model.pt", network("cgcnn"))
    hard_eam().save(tmp_path / "eam.json")
    write(tmp_path / "start.extxyz", [STRUCTURES["triclinic"] * (2, 1, 1), STRUCTURES["slab"]])
    return tmp_path


def run(work: Path, *words: object, status: int = 0) -> str:
    command = [sys.executable, "-m", "pretrain_mlip", *map(str, words)]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True)
    assert done.returncode == status, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stdout if status == 0 else done.stdout + done.stderr


def test_build_plugin_says_where_it_is(work: Path, plugin: Path) -> None:
    output = run(work, "lammps", "build-plugin")
    assert str(plugin) in output
    assert "loads it by itself" in output
    assert "no such file" in run(work, "lammps", "build-plugin", "--lammps", "nowhere.so", status=2)


def test_doctor_tries_every_way(work: Path) -> None:
    lines = run(work, "lammps", "doctor", "--lmp", find_program()).splitlines()
    state = {line.split("│")[1].strip(): line.split("│")[2].strip() for line in lines if line.startswith("│")}
    tables = [name for name in state if name]
    assert tables == ["eam/alloy", "eam/fs", "pretrain_mlip", "mliap", "2 processes", "fix external"]
    assert {name for name in tables if state[name] == "NOT"} == {"mliap"}
    assert any("conda-forge" in line for line in lines)
    assert "no such program" in run(work, "lammps", "doctor", "--lmp", "nowhere", status=2)


def test_parity_of_files(work: Path) -> None:
    ways = ("--route", "eam/", "--route", "external", "--ranks", "1,2")
    output = run(work, "lammps", "parity", "eam.json", "start.extxyz", *ways)
    assert output.count("same") == 6
    assert "start.extxyz 1" in output
    run(work, "export", "model.pt", "--format", "torchscript", "-o", "model.ts.pt")
    output = run(work, "lammps", "parity", "model.ts.pt")
    assert output.count("same") == 4
    assert "made-up crystal" in output
    assert "numbers of processes" in run(work, "lammps", "parity", "eam.json", "--ranks", "0", status=2)
    assert "known: eam/alloy" in run(work, "lammps", "parity", "eam.json", "--route", "vasp", status=2)


def test_exports_with_a_deck(work: Path) -> None:
    for words in (("eam.json", "-o", "metal.eam.alloy"), ("model.pt", "--format", "torchscript", "-o", "glass.ts.pt")):
        told = run(work, "export", *words, "--with-deck", "start.extxyz").splitlines()[-1]
        deck = told.removeprefix("lmp -in ")
        (work / deck).write_text((work / deck).read_text().replace("run 1000", "run 3"))
        assert "Total wall time" in run_lammps(deck, work, program=find_program())
    again = run(work, "export", "eam.json", "-o", "metal.eam.alloy", "--with-deck", "start.extxyz", status=2)
    assert "metal.in: is there, and is not written over" in again
    run(work, "export", "eam.json", "-o", "a.new.eam.alloy", "--with-deck", "start.extxyz")
    assert (work / "a.new.in").exists()
    (work / "b.data").write_text("mine")
    write(work / "germanium.extxyz", Atoms("Ge", cell=[5, 5, 5], pbc=True))
    before = sorted(work.iterdir())
    for name, source, message in (("b", "start.extxyz", "b.data: is there"), ("c", "germanium.extxyz", "Ge")):
        words = ("eam.json", "-o", f"{name}.eam.alloy", "--with-deck", source)
        assert message in run(work, "export", *words, status=2)
    assert sorted(work.iterdir()) == before
    assert (work / "b.data").read_text() == "mine"
    told = run(work, "export", "model.pt", "--format", "mliap", "-o", "glass.mliap")
    assert "comm_modify cutoff 14.5; pair_style mliap unified glass.mliap 1; pair_coeff * * O Si" in told
    wrong = ("--format", "mliap", "-o", "x.mliap", "--threads", 2)
    assert "--threads is for" in run(work, "export", "model.pt", *wrong, status=2)
