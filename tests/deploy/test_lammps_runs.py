"""Which programs are started, and in which environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from ase.constraints import FixAtoms
from tests.conftest import STRUCTURES

from pretrain_mlip.deploy.lammps.runs import launcher, periodic, run_lammps
from pretrain_mlip.errors import InputError


def script(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked for beside the program, then beside Python, then on the PATH: other MPIs start several runs of one."""
    program = script(tmp_path / "lammps" / "lmp")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    with pytest.raises(InputError, match="mpiexec"):
        launcher(program)
    for folder in ("path", "python", "lammps"):
        mpiexec = script(tmp_path / folder / "mpiexec")
        assert launcher(program) == [str(mpiexec)]


def test_environment_of_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LAMMPS starts as if the environment that it is installed in were activated."""
    monkeypatch.setenv("A_VARIABLE", "kept")
    program = script(tmp_path / "environment" / "lmp", 'echo "$PATH"; test "$A_VARIABLE" = kept')
    folders = run_lammps("in", tmp_path, program=program).strip().split(os.pathsep)
    assert folders == [str(program.parent), *os.environ["PATH"].split(os.pathsep)]


def test_the_structure_of_the_user_stays_as_it_is() -> None:
    held = STRUCTURES["slab"].copy()
    held.set_constraint(FixAtoms([0]))
    before = held.copy()
    assert periodic(held, 6.0).pbc.all()
    assert held == before
    assert held.constraints
