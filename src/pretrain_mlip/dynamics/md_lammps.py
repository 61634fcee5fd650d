"""The MD run of ``dynamics.md`` by LAMMPS: the same start, ramps, checks and outcome, many processes if wanted.

LAMMPS runs the deck ramp.in, which watches itself roughly; its trajectory is then checked as that of ASE is.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from ase import Atoms, units
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
from pretrain_mlip.dynamics.failure import FailureSettings
from pretrain_mlip.dynamics.md import check_start, draw_momenta
from pretrain_mlip.dynamics.protocols import MDSettings
from pretrain_mlip.dynamics.watch import MDRun, TrajectoryFile, Watch
from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.files import make_folder
from pretrain_mlip.potentials.base import Potential
from pretrain_mlip.potentials.checkpoint import load_potential
from pretrain_mlip.potentials.eam.embedded_atom import EmbeddedAtom
from pretrain_mlip.potentials.eam.setfl import write_setfl

NEVER = 1e30
BAR = 1e-4 * units.GPa  # in eV/Å³
# What LAMMPS stops for where a potential has led atoms astray; other errors are not the potential's
ASTRAY = (
    "Lost atoms",
    "Non-numeric",
    "Out of range atoms",
    "Neighbor list overflow",
    "Too many neighbor bins",
    "not finite",
)


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
    """Run MD in LAMMPS until the end or until the first failure.

    Args:
        atoms: starting structure without constraints, atoms of an element of one mass; directions that are not periodic
            get vacuum.
        potential: a file of ours, which is exported first where LAMMPS does not read it.
        settings: the run. At every step that is checked or saved LAMMPS writes a frame, which is checked afterwards.
        program: LAMMPS, see ``find_program``.
        ranks: processes.
        dtype: of networks that are exported.
        failure: the checks; None takes their defaults.
        seed: of the starting velocities, those of ASE's run, and of the thermostat.
        trajectory: extxyz file of the good frames. LAMMPS works in a folder beside it; when it is interrupted the good
            frames are in ``<trajectory>.part``.

    Raises:
        InputError: the structure or the potential cannot be used, or there is no mpiexec.
        ComputationError: LAMMPS stops with an error that is not a consequence of where atoms went.
    """
    check_start(atoms, settings)
    settings = settings.of(atoms)
    checks = failure or FailureSettings()
    refuse_constraints(atoms)
    path = Path(potential)
    if path.suffix == ".mliap":
        raise InputError(f"{path}: engine lammps takes what this package reads too; give the checkpoint of it")
    exported = next((suffix for suffix in SUFFIXES if path.name.endswith(suffix)), None)
    if exported is not None and dtype is not None:
        raise InputError(f"{path}: is exported, and keeps its precision; dtype is for checkpoints")
    loaded = load_potential(path)
    types_of(atoms, loaded.elements)  # names what the potential does not know
    start = periodic(atoms, loaded.cutoff)
    start.info = {}
    draw_momenta(start, settings.temperature, np.random.default_rng(np.random.SeedSequence(seed).spawn(2)[0]))
    beside = None if trajectory is None else make_folder(Path(trajectory).parent)
    watch = Watch(settings, checks)
    with TrajectoryFile(trajectory) as file, tempfile.TemporaryDirectory(dir=beside, prefix=".lammps-") as name:
        folder = Path(name)
        elements = sorted(set(start.symbols))
        model = _export(loaded, folder, dtype) if exported is None else folder / f"potential{exported}"
        if exported is not None:
            model.symlink_to(path.absolute())  # names of files in input cannot have spaces
        prism = _write_input(folder, start, elements)
        variables = _variables(start, model, elements, settings, checks, seed)
        error = ""
        try:
            run_lammps(Path("decks/ramp.in"), folder, program=program, ranks=ranks, variables=variables)
        except ComputationError as stopped:
            error = str(stopped)
        finally:  # of an interrupted run as well
            step = _look(watch, _read(folder, prism, start, settings), file)
        if watch.failure is None:
            _end(watch, step, error, program)
        run = watch.outcome()
        file.append(run.frames)
        file.write_failed(run)
    return run


def _look(watch: Watch, frames: Iterator[Atoms], file: TrajectoryFile) -> int | None:
    """Judge frame by frame as while ASE runs, to the first failure; the step of the last that was seen."""
    step = None
    for frame in frames:
        step = frame.info["step"]
        if not watch.look(frame, step):
            break
        file.append(watch.frames)
    return step


def _end(watch: Watch, step: int | None, error: str, program: Path) -> None:
    """Judge how LAMMPS ended, where all frames were good: ``step`` is that of the last, ``error`` what LAMMPS said."""
    if step is None:
        raise ComputationError(error or f"{program}: LAMMPS has written no frame")
    if error and not any(sign in error for sign in ASTRAY):
        raise ComputationError(error)
    if error:
        watch.fail(step, error)
    elif step < watch.settings.steps:
        watch.fail(step, "LAMMPS stopped by itself, see fix halt in watch.in")


def _write_input(folder: Path, start: Atoms, elements: list[str]) -> Prism:
    """Decks and structure."""
    shutil.copytree(DECKS, folder / "decks")
    first = [start.symbols.indices()[symbol][0] for symbol in elements]
    masses = [f"mass {kind} {start.get_masses()[atom]:.17g}\n" for kind, atom in enumerate(first, start=1)]
    with (folder / "decks" / "start.in").open("a", encoding="utf-8") as stream:
        stream.writelines(masses)  # again, since eam/alloy takes those of its tables
    return write_structure(folder / "start.data", start, elements, velocities=True)


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
    hottest = max(settings.temperature, settings.last_temperature)
    return {
        "decks": "decks",
        "model": model.name,
        "style": style_of(model),
        "elements": " ".join(elements),
        "structure": "start.data",
        "velocities": "keep",
        "timestep": settings.step_fs / 1000.0,
        "steps": settings.steps,
        "temperature": max(settings.temperature, 1e-3),  # LAMMPS wants it positive
        "end_temperature": max(settings.last_temperature, 1e-3),
        "ensemble": settings.ensemble,
        "damping": 0.001 / settings.friction if settings.ensemble == "langevin" else settings.thermostat_time / 1000.0,
        "pressure": settings.target_pressure(0) / BAR,
        "end_pressure": settings.target_pressure(settings.steps) / BAR,
        "pressure_damping": settings.barostat_time / 1000.0,
        "volume_factor": f"{settings.volume_factor:.17g}",
        "seed": 1 + seed % 900_000_000,
        "save": settings.save_every,
        "check": settings.check_every,
        "save_checked": "yes",
        "numbers": "%.14g",
        "limit": NEVER if checks.temperature_margin is None else hottest + checks.temperature_margin,
        "closest": 0.0 if checks.min_distance_fraction is None else 2 * radii.min() * checks.min_distance_fraction,
        "fall": NEVER if checks.energy_fall is None or checks.energy_range is not None else checks.energy_fall,
    }


def _read(folder: Path, prism: Prism, start: Atoms, settings: MDSettings) -> Iterator[Atoms]:
    """The whole frames, not folded into the cell, with momenta, energy and forces, in the order of ``start``."""
    dump = folder / "trajectory.dump"
    if not dump.is_file():
        return
    energies = _energies(folder / "log.lammps")
    size, seen = 9 + len(start), -1  # lines of a frame, step of the last
    with dump.open(encoding="utf-8") as stream:
        while len(lines := list(islice(stream, size))) == size and lines[-1].endswith("\n"):
            step = int(lines[1])
            if step not in energies:  # the log ends before
                return
            if step == seen:  # written at the end of one run and at the start of the next
                continue
            seen = step
            low, cell = _box(lines[5:8])
            names = lines[8].split()[2:]  # ITEM: ATOMS id element ...
            table = np.loadtxt(lines[9:], usecols=range(names.index("x"), len(names)), ndmin=2)
            places, images, velocities, forces = np.split(table, 4, axis=1)
            frame = start.copy()
            frame.set_cell(prism.vector_to_ase(cell))
            frame.positions = prism.vector_to_ase(places - low + images @ cell)
            frame.set_cell(frame.cell.array * _change_undone(step, settings), scale_atoms=True)
            frame.set_velocities(prism.vector_to_ase(velocities) / (1000.0 * units.fs))
            frame.calc = SinglePointCalculator(frame, energy=energies[step], forces=prism.vector_to_ase(forces))
            frame.info = {"step": step}
            yield frame


def _box(bounds: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Origin (3,) and cell (3, 3) of a dump's ITEM: BOX BOUNDS, which are those of a box around a skewed cell."""
    rows = np.array([line.split() for line in bounds], dtype=float)
    xy, xz, yz = rows[:, 2] if rows.shape[1] == 3 else (0.0, 0.0, 0.0)
    tilted = np.array([[0.0, xy, xz, xy + xz], [0.0, yz, 0.0, yz], [0.0] * 4])
    low, high = rows[:, 0] - tilted.min(axis=1), rows[:, 1] - tilted.max(axis=1)
    cell = np.diag(high - low)
    cell[1, 0], cell[2, 0], cell[2, 1] = xy, xz, yz
    return low, cell


def _change_undone(step: int, settings: MDSettings) -> float:
    """Ratio of lengths: LAMMPS changes the cell after it has computed forces, and writes it after that."""
    return settings.stretch(max(step - 1, 0)) / settings.stretch(step)


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
