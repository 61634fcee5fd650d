"""The MD run of ``dynamics.md`` by LAMMPS: the same start, ramps, checks and outcome, many processes if wanted.

LAMMPS runs the deck ramp.in, which watches itself roughly; its trajectory is then checked as that of ASE is.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.lammps import Prism
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import covalent_radii

from pretrain_mlip.deploy.exports import write_export
from pretrain_mlip.deploy.lammps.decks import DECKS, types_of
from pretrain_mlip.deploy.lammps.runs import (
    SUFFIXES,
    periodic,
    refuse_constraints,
    run_lammps,
    style_of,
    write_structure,
)
from pretrain_mlip.dynamics.failure import Failure, FailureSettings, check
from pretrain_mlip.dynamics.md import MDRun, MDSettings, Thermo, check_start, draw_momenta
from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.files import atomic_path
from pretrain_mlip.potentials.base import Potential
from pretrain_mlip.potentials.checkpoint import load_potential
from pretrain_mlip.potentials.eam.embedded_atom import EmbeddedAtom
from pretrain_mlip.potentials.eam.setfl import write_setfl

NEVER = 1e30


def run_md_lammps(
    atoms: Atoms,
    potential: str | os.PathLike[str],
    settings: MDSettings,
    *,
    program: Path,
    ranks: int = 1,
    dtype: str | None = None,
    failure: FailureSettings | None = None,
    seed: int = 0,
    trajectory: str | os.PathLike[str] | None = None,
) -> MDRun:
    """Run Langevin MD in LAMMPS until the end or until the first failure.

    Args:
        atoms: starting structure without constraints; directions that are not periodic get vacuum.
        potential: a file of ours, which is exported first where LAMMPS does not read it.
        settings: the run. Every ``check_every`` steps a frame is written by LAMMPS, and checked afterwards.
        program: LAMMPS, see ``find_program``.
        ranks: processes.
        dtype: of networks that are exported.
        failure: the checks; None takes their defaults.
        seed: of the starting velocities, those of ASE's run, and of the thermostat.
        trajectory: extxyz file of the good frames.

    Raises:
        InputError: the structure or the potential cannot be used, or there is no mpiexec.
        ComputationError: LAMMPS stops with an error before the first step.
    """
    check_start(atoms, settings)
    checks = failure or FailureSettings()
    refuse_constraints(atoms)
    path = Path(potential)
    if path.suffix == ".mliap":
        raise InputError(f"{path}: engine lammps takes what this package reads too; give the checkpoint of it")
    loaded = load_potential(path)
    types_of(atoms, loaded.elements)  # names what the potential does not know
    start = periodic(atoms, loaded.cutoff)
    start.info = {}
    draw_momenta(start, settings.temperature, np.random.default_rng(np.random.SeedSequence(seed).spawn(2)[0]))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        elements = sorted(set(start.symbols))
        model = path.absolute() if path.name.endswith(tuple(SUFFIXES)) else _export(loaded, folder, dtype)
        prism = write_structure(folder / "start.data", start, elements, velocities=True)
        error = ""
        try:
            run_lammps(
                DECKS / "ramp.in",
                folder,
                program=program,
                ranks=ranks,
                variables=_variables(start, model, elements, settings, checks, seed),
            )
        except ComputationError as stopped:
            error = str(stopped)
        frames = list(_read(folder, prism, start, settings))
    if not frames:
        raise ComputationError(error or f"{program}: LAMMPS has written no frame")
    run = _judge(frames, settings, checks, error)
    if trajectory is not None and run.frames:
        with atomic_path(trajectory) as temporary:
            ase.io.write(temporary, run.frames, format="extxyz")
    return run


def _export(potential: Potential, folder: Path, dtype: str | None) -> Path:
    if not isinstance(potential, EmbeddedAtom):
        write_export(potential, folder / "potential.ts.pt", "torchscript", dtype=dtype)
        return folder / "potential.ts.pt"
    file = folder / ("potential.eam.fs" if potential.form == "fs" else "potential.eam.alloy")
    write_setfl(potential, file, include_e0=True)
    return file


def _variables(
    atoms: Atoms, model: Path, elements: list[str], settings: MDSettings, checks: FailureSettings, seed: int
) -> dict[str, object]:
    radii = covalent_radii[atoms.numbers]
    hottest = max(settings.temperature, settings.end_temperature)
    return {
        "decks": DECKS,
        "model": model,
        "style": style_of(model),
        "elements": " ".join(elements),
        "structure": "start.data",
        "velocities": "keep",
        "timestep": settings.timestep / 1000.0,
        "steps": settings.steps,
        "temperature": max(settings.temperature, 1e-3),  # LAMMPS wants it positive
        "end_temperature": max(settings.end_temperature, 1e-3),
        "damping": 0.001 / settings.friction,
        "length_factor": settings.volume_factor ** (1.0 / 3.0),
        "seed": 1 + seed % 900_000_000,
        "every": settings.check_every,
        "save": settings.check_every,
        "check": settings.check_every,
        "numbers": "%.14g",
        "limit": NEVER if checks.temperature_margin is None else hottest + checks.temperature_margin,
        "closest": 0.0 if checks.min_distance_fraction is None else 2 * radii.min() * checks.min_distance_fraction,
        "fall": NEVER,
    }


def _read(folder: Path, prism: Prism, start: Atoms, settings: MDSettings) -> Iterator[Atoms]:
    """The frames that LAMMPS has written, whole ones, with momenta, energy and forces, in the order of ``start``."""
    dump = folder / "trajectory.dump"
    if not dump.is_file():
        return
    lines = dump.read_text(encoding="utf-8").splitlines(keepends=True)
    size = 9 + len(start)  # lines of a frame
    text = "".join(lines[: len(lines) // size * size])
    energies = _energies(folder / "log.lammps")
    for read in ase.io.iread(io.StringIO(text), index=":", format="lammps-dump-text", prismobj=prism, units="metal"):
        step = read.info["timestep"]
        if step not in energies:  # the log ends before
            return
        frame = start.copy()
        frame.set_cell(read.cell)
        frame.positions = read.positions
        frame.set_cell(frame.cell.array * _change_undone(step, settings), scale_atoms=True)
        frame.set_momenta(read.get_momenta())
        frame.calc = SinglePointCalculator(frame, energy=energies[step], forces=read.get_forces())
        frame.info = {
            "step": step,
            "time_fs": step * settings.timestep,
            "target_temperature": settings.target_temperature(step),
        }
        yield frame


def _change_undone(step: int, settings: MDSettings) -> float:
    """Ratio of lengths: LAMMPS changes the cell after it has computed forces, and writes it after that."""
    if step == 0:
        return 1.0
    growth = (settings.volume_factor ** (1.0 / 3.0) - 1.0) / settings.steps
    return (1.0 + growth * (step - 1)) / (1.0 + growth * step)


def _energies(log: Path) -> dict[int, float]:
    """Step -> potential energy in eV, from the tables of a log."""
    found: dict[int, float] = {}
    columns: list[str] = []
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        words = line.split()
        if words[:1] == ["Step"]:
            columns = words
        elif line.startswith("Loop time"):
            columns = []
        elif columns and len(words) == len(columns) and words[0].isdecimal():  # others are warnings
            found[int(words[0])] = float(words[columns.index("PotEng")])
    return found


def _judge(frames: list[Atoms], settings: MDSettings, checks: FailureSettings, error: str) -> MDRun:
    """The outcome of a trajectory, judged frame by frame as while ASE runs."""
    thermo, kept = Thermo(), []
    last: Atoms | None = None
    for frame in frames:
        step = frame.info["step"]
        found = check(
            frame,
            checks,
            step=step,
            time_fs=step * settings.timestep,
            target_temperature=settings.target_temperature(step),
            previous_temperature=thermo.temperature[-1] if thermo.temperature else None,
        )
        if found is not None:
            return _outcome(kept, last, thermo, found, frame)
        thermo.record(frame, step * settings.timestep / 1000.0, settings.target_temperature(step))
        last = frame
        if step % settings.save_every == 0:
            kept.append(frame)
    assert last is not None  # noqa: S101  # for the type checker; there are frames
    step = last.info["step"]
    if error:
        return _outcome(kept, last, thermo, Failure("calculator", step, step * settings.timestep, detail=error), None)
    if step < settings.steps // settings.check_every * settings.check_every:
        early = "LAMMPS stopped by itself, see fix halt in watch.in"
        return _outcome(kept, last, thermo, Failure("calculator", step, step * settings.timestep, detail=early), None)
    run = _outcome(kept, last, thermo, None, None)
    run.time_ps = settings.steps * settings.timestep / 1000.0
    return run


def _outcome(
    kept: list[Atoms], last: Atoms | None, thermo: Thermo, failure: Failure | None, failed: Atoms | None
) -> MDRun:
    if last is not None and (not kept or kept[-1] is not last):
        kept = [*kept, last]
    return MDRun(failure is None, failure, failure.time_fs / 1000.0 if failure else 0.0, thermo, kept, failed)
