"""The MD run by LAMMPS: it starts as that of ASE, fails for the same reasons, and gives the same kind of outcome."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.constraints import FixAtoms
from ase.io import read, write
from tests.conftest import STRUCTURES, hard_eam
from tests.export_potentials import network
from tests.lammps_environment import with_plugin
from tests.lammps_oracle import published

from pretrain_mlip import PretrainedMLIP
from pretrain_mlip.deploy.exports import write_export
from pretrain_mlip.deploy.lammps.runs import find_program
from pretrain_mlip.dynamics import md_lammps
from pretrain_mlip.dynamics.failure import FailureSettings
from pretrain_mlip.dynamics.md import MDSettings, run_md
from pretrain_mlip.dynamics.md_lammps import run_md_lammps
from pretrain_mlip.dynamics.watch import MDRun, Watch
from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.potentials.checkpoint import save_potential

SHORT = {"timestep": 0.5, "duration_ps": 0.05, "end_temperature": 600.0, "save_every": 20}


@pytest.fixture(scope="module")
def lmp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with with_plugin(tmp_path_factory):
        yield find_program()


def both(potential: Path, atoms: Atoms, lmp: Path, **settings: object) -> tuple[MDRun, MDRun]:
    given = MDSettings(**{**SHORT, **settings})  # type: ignore[arg-type]
    calculator = PretrainedMLIP.load(potential)
    return run_md(atoms, calculator, given, seed=3), run_md_lammps(
        atoms, potential, given, program=lmp, seed=3, ranks=2
    )


@pytest.mark.parametrize("kind", ["eam", "network"])
def test_it_starts_and_ends_as_that_of_ase(kind: str, lmp: Path, tmp_path: Path) -> None:
    path = tmp_path / ("eam.json" if kind == "eam" else "model.pt")
    if kind == "eam":
        hard_eam().save(path)
    else:
        save_potential(path, network("cgcnn"))
    ours, theirs = both(path, STRUCTURES["triclinic"] * (2, 2, 2), lmp, volume_factor=1.1)
    assert ours.completed
    assert theirs.completed
    assert theirs.time_ps == ours.time_ps
    assert theirs.thermo.time_ps == pytest.approx(ours.thermo.time_ps)
    assert theirs.thermo.target_temperature == pytest.approx(ours.thermo.target_temperature)
    assert [frame.info["step"] for frame in theirs.frames] == [frame.info["step"] for frame in ours.frames]
    first, same = ours.frames[0], theirs.frames[0]
    assert list(first.symbols) == list(same.symbols)
    assert same.get_forces() == pytest.approx(first.get_forces(), abs=1e-8)
    assert same.get_momenta() == pytest.approx(first.get_momenta(), rel=1e-6, abs=1e-6)
    assert same.get_potential_energy() == pytest.approx(first.get_potential_energy(), rel=0, abs=1e-6)
    volume, progress = np.array(theirs.thermo.volume), np.array(theirs.thermo.time_ps) / 0.05
    assert volume == pytest.approx(volume[0] * (1 + 0.1 * progress), rel=2e-3)  # a step behind
    last = theirs.frames[-1].copy()
    last.calc = PretrainedMLIP.load(path)
    assert last.get_forces() == pytest.approx(theirs.frames[-1].get_forces(), abs=1e-7)
    assert last.get_potential_energy() == pytest.approx(theirs.frames[-1].get_potential_energy(), rel=0, abs=1e-6)


def test_failures_are_those_of_ase(lmp: Path, tmp_path: Path) -> None:
    save_potential(tmp_path / "model.pt", network("cgcnn"))
    ours, theirs = both(
        tmp_path / "model.pt", STRUCTURES["quartz"] * (2, 2, 2), lmp, volume_factor=0.05, duration_ps=0.3, timestep=1.0
    )
    for run in (ours, theirs):
        assert run.failure is not None
        assert run.failure.check == "too_close"
        assert run.failed_frame is not None
        assert 0.01 < run.time_ps < 0.3
        assert run.frames[-1].info["time_fs"] < run.failure.time_fs


@pytest.mark.parametrize(("check_every", "save_every"), [(10, 3), (4, 10), (100, 7)])
def test_steps_are_those_of_ase(check_every: int, save_every: int, lmp: Path, tmp_path: Path) -> None:
    hard_eam().save(tmp_path / "eam.json")
    runs = both(
        *(tmp_path / "eam.json", STRUCTURES["triclinic"] * (2, 2, 2), lmp),
        duration_ps=0.0115,
        check_every=check_every,
        save_every=save_every,
    )
    ours, theirs = ([frame.info["step"] for frame in run.frames] for run in runs)
    assert theirs == ours
    assert ours[-1] == 23
    assert runs[1].thermo.time_ps == pytest.approx(runs[0].thermo.time_ps)


def test_positions_are_not_folded(lmp: Path, tmp_path: Path) -> None:
    """Atoms outside of the cell, and others that leave it, in a skewed cell that shrinks; folders with spaces."""
    folder = tmp_path / "my models"
    folder.mkdir()
    write_export(network("cgcnn"), folder / "model.ts.pt", "torchscript")
    atoms = STRUCTURES["triclinic"] * (2, 2, 2)
    atoms.set_cell(np.array([[1, 0, 0], [0.9, 1, 0], [-0.8, 1.3, 1]]) @ atoms.cell.array, scale_atoms=True)
    atoms.positions += [0.3, 25.0, -40.0]
    settings = MDSettings(**{**SHORT, "temperature": 5000.0, "volume_factor": 0.9})  # type: ignore[arg-type]
    output = tmp_path / "to be read" / "md.extxyz"
    run = run_md_lammps(
        *(atoms, folder / "model.ts.pt", settings),
        program=lmp,
        seed=3,
        ranks=2,
        failure=FailureSettings(min_distance_fraction=None),
        trajectory=output,
    )
    assert run.completed
    assert run.frames[0].positions == pytest.approx(atoms.positions, abs=1e-8)
    inside = np.array([frame.get_scaled_positions(wrap=False) for frame in run.frames])
    assert np.abs(np.diff(inside, axis=0)).max() < 0.2
    assert (np.floor(inside[0]) != np.floor(inside[-1])).any()
    assert [path.name for path in output.parent.iterdir()] == ["md.extxyz"]
    assert len(read(output, ":")) == len(run.frames)


def test_an_interrupted_run_keeps_its_frames(lmp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hard_eam().save(tmp_path / "eam.json")

    def interrupted(*given: object, **options: object) -> str:
        md_lammps_run(*given, **options)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    md_lammps_run = md_lammps.run_lammps
    monkeypatch.setattr(md_lammps, "run_lammps", interrupted)
    settings = MDSettings(**SHORT)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        run_md_lammps(
            *(STRUCTURES["triclinic"] * (2, 2, 2), tmp_path / "eam.json", settings),
            program=lmp,
            trajectory=tmp_path / "md.extxyz",
        )
    assert len(read(tmp_path / "md.extxyz.part", ":", format="extxyz")) == 6
    assert {path.name for path in tmp_path.iterdir()} == {"eam.json", "md.extxyz.part"}


def test_masses_are_those_of_the_structure(lmp: Path, tmp_path: Path) -> None:
    hard_eam().save(tmp_path / "eam.json")
    atoms = STRUCTURES["triclinic"] * (2, 2, 2)
    atoms.set_masses(np.where(atoms.symbols == "O", 18.0, 28.0))
    ours, theirs = both(tmp_path / "eam.json", atoms, lmp, timestep=0.01, duration_ps=0.0001, friction=1e-9)
    assert theirs.frames[-1].positions == pytest.approx(ours.frames[-1].positions, abs=1e-6)
    assert theirs.thermo.temperature[-1] == pytest.approx(ours.thermo.temperature[-1], rel=1e-5)
    atoms.set_masses(np.where(np.arange(len(atoms)) % 2, 16.0, 18.0))
    with pytest.raises(InputError, match="atoms of Si have masses from 16 to 18"):
        run_md_lammps(atoms, tmp_path / "eam.json", MDSettings(), program=lmp)


def test_what_lammps_stops_for(lmp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hard_eam().save(tmp_path / "eam.json")
    atoms, settings = STRUCTURES["triclinic"] * (2, 2, 2), MDSettings(**SHORT)  # type: ignore[arg-type]
    decks = tmp_path / "decks"
    shutil.copytree(md_lammps.DECKS, decks)
    monkeypatch.setattr(md_lammps, "DECKS", decks)
    ramp = (decks / "ramp.in").read_text()
    (decks / "ramp.in").write_text(
        ramp.replace("run ${steps}", "run 40\nchange_box all boundary f f f\nset atom 1 vx 1e6\nrun 20")
    )
    run = run_md_lammps(atoms, tmp_path / "eam.json", settings, program=lmp)
    assert run.failure is not None
    assert (run.failure.check, run.failure.step) == ("calculator", 40)
    assert "Lost atoms" in run.failure.detail
    (decks / "ramp.in").write_text(ramp.replace("run ${steps}", "run 40"))
    run = run_md_lammps(atoms, tmp_path / "eam.json", settings, program=lmp)
    assert run.failure is not None
    assert "stopped by itself" in run.failure.detail
    killed = tmp_path / "lmp"
    killed.write_text(f'#!/bin/sh\n{lmp} "$@"\nkill -9 $$\n')
    killed.chmod(0o755)
    with pytest.raises(ComputationError, match="exit status -9"):
        run_md_lammps(atoms, tmp_path / "eam.json", settings, program=killed)
    for wrong in ("no_such_command", "run 40\nno_such_command"):
        (decks / "ramp.in").write_text(ramp.replace("run ${steps}", wrong))
        with pytest.raises(ComputationError, match="no_such_command"):
            run_md_lammps(atoms, tmp_path / "eam.json", settings, program=lmp)
    for wrong, message in (
        (Atoms(), "no atoms"),
        (Atoms("Ge", cell=[5, 5, 5], pbc=True), "not Ge of the structure"),
        (Atoms("Si", constraint=FixAtoms([0])), "does not know the constraints"),
    ):
        with pytest.raises(InputError, match=message):
            run_md_lammps(wrong, tmp_path / "eam.json", settings, program=lmp)
    with pytest.raises(InputError, match="give the checkpoint"):
        run_md_lammps(atoms, tmp_path / "model.mliap", settings, program=lmp)
    with pytest.raises(InputError, match="keeps its precision"):
        run_md_lammps(atoms, tmp_path / "model.pt2", settings, program=lmp, dtype="float32")


def test_checks_that_are_off_are_off_in_lammps_too(lmp: Path, tmp_path: Path) -> None:
    save_potential(tmp_path / "model.pt", network("cgcnn"))
    settings = MDSettings(duration_ps=0.1, volume_factor=0.05, timestep=1.0)
    off = FailureSettings(min_distance_fraction=None, temperature_margin=None, temperature_jump=None)
    atoms = STRUCTURES["quartz"] * (2, 2, 2)
    watched = run_md_lammps(atoms, tmp_path / "model.pt", settings, program=lmp)
    free = run_md_lammps(atoms, tmp_path / "model.pt", settings, program=lmp, failure=off)
    assert watched.failure is not None
    assert free.completed
    assert watched.time_ps < free.time_ps


def test_on_the_command_line(lmp: Path, tmp_path: Path) -> None:
    assert lmp.is_file()
    hard_eam().save(tmp_path / "eam.json")
    write(tmp_path / "start.extxyz", STRUCTURES["triclinic"] * (2, 2, 2))
    command = [sys.executable, "-m", "pretrain_mlip", "md", "eam.json", "start.extxyz", "--engine", "lammps"]
    command += ["duration_ps=0.02", "end_temperature=300", "-o", "md.extxyz"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "completed 0.020 ps" in done.stdout
    frames = read(tmp_path / "md.extxyz", ":")
    assert len(frames) == 2
    assert np.abs(frames[0].get_forces()).max() > 0.1
    for wrong, message in (
        (["--compile"], "are of --engine ase"),
        (["--engine", "vasp"], "expected ase or lammps"),
        (["--engine", "ase", "--ranks", "2"], "are of --engine lammps"),
        (["--lmp", "nowhere"], "no such program"),
    ):
        failed = subprocess.run([*command, *wrong], cwd=tmp_path, capture_output=True, text=True)
        assert failed.returncode == 2
        assert message in failed.stderr


def test_without_a_thermostat_it_is_the_run_of_ase(lmp: Path, tmp_path: Path) -> None:
    hard_eam().save(tmp_path / "eam.json")
    structure = STRUCTURES["triclinic"] * (2, 2, 2)
    ours, theirs = both(tmp_path / "eam.json", structure, lmp, ensemble="nve", end_temperature=None)
    # Tables of setfl against the functions; 100 steps
    assert theirs.frames[-1].positions == pytest.approx(ours.frames[-1].positions, abs=1e-4)
    assert theirs.thermo.temperature == pytest.approx(ours.thermo.temperature, rel=1e-3)


@pytest.mark.parametrize("ensemble", ["langevin", "bussi", "nose_hoover", "npt", "npt_full"])
def test_thermostats_and_barostats(ensemble: str, lmp: Path) -> None:
    """Temperature and pressure are those asked for, and the cell changes as it is meant to."""
    table = published("Cu_mishin1.eam.alloy")
    structure = bulk("Cu", cubic=True) * (3, 3, 3)
    own = {"friction": 0.05} if ensemble == "langevin" else {"thermostat_time": 20.0}
    pressed = ensemble.startswith("npt")
    if pressed:
        own |= {"barostat_time": 200.0, "pressure_gpa": 0.0, "end_pressure_gpa": 20.0}
    settings = MDSettings(ensemble=ensemble, duration_ps=2.0, temperature=600.0, **own)  # type: ignore[arg-type]
    run = run_md_lammps(structure, table, settings, program=lmp, seed=1)
    assert run.completed
    late = run.frames[len(run.frames) // 2 :]
    assert np.mean(run.thermo.temperature[len(run.thermo.temperature) // 2 :]) == pytest.approx(600.0, rel=0.15)
    shapes = np.array([frame.cell.array / frame.cell.volume ** (1 / 3) for frame in run.frames])
    assert (np.ptp(run.thermo.volume) > 1e-3) == pressed
    assert (np.ptp(shapes, axis=0).max() > 1e-3) == (ensemble == "npt_full")
    if pressed:
        calculator = PretrainedMLIP.load(table)
        pressures = []
        for frame in late:
            frame.calc = calculator
            pressures.append(-np.trace(frame.get_stress(voigt=False, include_ideal_gas=True)) / 3 / units.GPa)
        assert np.mean(pressures) == pytest.approx(15.0, abs=2.0)


def test_the_box_grows_from_its_origin(lmp: Path, tmp_path: Path) -> None:
    hard_eam().save(tmp_path / "eam.json")
    runs = both(
        *(tmp_path / "eam.json", STRUCTURES["triclinic"] * (2, 2, 2), lmp),
        timestep=0.01,
        duration_ps=0.0001,
        friction=1e-9,
        volume_factor=1.1,
    )
    ours, theirs = (run.frames[-1].get_scaled_positions(wrap=False) for run in runs)
    assert theirs == pytest.approx(ours, abs=1e-4)


@pytest.mark.parametrize(
    "sign",
    [
        "Lost atoms",
        "Non-numeric",
        "Out of range atoms",
        "Neighbor list overflow",
        "Too many neighbor bins",
        "not finite",
    ],
)
def test_errors_that_are_failures_of_the_potential(sign: str) -> None:
    watch = Watch(MDSettings(timestep=1.0), FailureSettings())
    md_lammps._end(watch, 10, f"lmp: ERROR: {sign}: x", Path("lmp"))
    assert watch.failure is not None
    assert watch.failure.check == "calculator"


def test_no_frame_at_all() -> None:
    with pytest.raises(ComputationError, match="written no frame"):
        md_lammps._end(Watch(MDSettings(timestep=1.0), FailureSettings()), None, "", Path("lmp"))


@pytest.mark.parametrize("cut", ["log.lammps", "trajectory.dump"])
def test_files_that_were_cut_off(cut: str, lmp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame counts where all of it is there, and its energy."""
    hard_eam().save(tmp_path / "eam.json")
    real = md_lammps.run_lammps

    def interrupted(deck: Path, folder: Path, **options: Any) -> None:
        real(deck, folder, **options)
        text = (folder / cut).read_text()
        last_line_of_the_table = text[: text.rfind("Loop time")].rsplit("\n", 2)[0] + "\n"
        (folder / cut).write_text(last_line_of_the_table if cut == "log.lammps" else text[:-10])
        raise KeyboardInterrupt

    monkeypatch.setattr(md_lammps, "run_lammps", interrupted)
    atoms, settings = STRUCTURES["triclinic"] * (2, 2, 2), MDSettings(**SHORT)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        run_md_lammps(atoms, tmp_path / "eam.json", settings, program=lmp, trajectory=tmp_path / "md.extxyz")
    assert len(read(tmp_path / "md.extxyz.part", ":", format="extxyz")) == 5


def test_the_limit_of_the_temperature_is_counted_from_the_hottest() -> None:
    settings = MDSettings(timestep=1.0, temperature=300, end_temperature=3000)
    checks = FailureSettings(temperature_margin=500)
    given = md_lammps._variables(STRUCTURES["quartz"], Path("x.pt2"), ["O", "Si"], settings, checks, 0)
    assert given["limit"] == 3500
