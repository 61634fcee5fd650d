"""Molecular dynamics that watches itself: a Langevin run with temperature and volume ramps that stops when it fails.

The default is a heating ramp from 300 to 6000 K: it leads through every regime a potential may meet, from a warm
crystal to a gas-like melt, so that the time of the first failure orders potentials by reliability within a few ps.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.md.langevin import Langevin
from pydantic import Field

from pretrain_mlip import console
from pretrain_mlip.dynamics.checks import Checks
from pretrain_mlip.dynamics.failure import Failure, FailureSettings
from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.files import make_folder
from pretrain_mlip.settings import Settings

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

logger = logging.getLogger(__name__)
RAMP_EVERY = 10  # steps between changes of the target temperature and of the cell: small steps, few extra force calls


class MDSettings(Settings):
    """One Langevin run."""

    timestep: float = Field(default=1.0, gt=0, le=10, description="time step in fs")
    duration_ps: float = Field(default=3.0, gt=0, description="length of the run in ps")
    temperature: float = Field(default=300.0, ge=0, description="temperature at the start in K")
    end_temperature: float = Field(
        default=6000.0,
        ge=0,
        description="temperature at the end in K, reached linearly; the same as at the start keeps it constant",
    )
    friction: float = Field(
        default=0.01, gt=0, lt=1, description="Langevin friction in 1/fs; 0.01 thermalises within 0.1 ps"
    )
    volume_factor: float = Field(
        default=1.0,
        gt=0,
        le=10,
        description="final over initial volume, reached linearly over the run; 1 keeps the cell",
    )
    check_every: int = Field(default=10, ge=1, description="steps between checks for failure")
    save_every: int = Field(default=100, ge=1, description="steps between saved frames")

    @property
    def steps(self) -> int:
        """Number of steps of the whole run."""
        return max(1, round(self.duration_ps * 1000.0 / self.timestep))

    def target_temperature(self, step: int) -> float:
        """Thermostat temperature in K at a step."""
        return self.temperature + (self.end_temperature - self.temperature) * step / self.steps


@dataclass
class Thermo:
    """What was measured at each check, in order of time: lists of equal length."""

    time_ps: list[float] = field(default_factory=list)
    temperature: list[float] = field(default_factory=list)  # K
    target_temperature: list[float] = field(default_factory=list)  # K
    potential_energy: list[float] = field(default_factory=list)  # eV
    volume: list[float] = field(default_factory=list)  # Å³, 0 where the cell is not three-dimensional

    def record(self, atoms: Atoms, time_ps: float, target_temperature: float) -> None:
        """Append what a structure with its energy and momenta is like now."""
        self.time_ps.append(time_ps)
        self.temperature.append(float(atoms.get_temperature()))
        self.target_temperature.append(target_temperature)
        self.potential_energy.append(float(atoms.get_potential_energy()))
        self.volume.append(float(atoms.cell.volume))


@dataclass
class MDRun:
    """The outcome of a run.

    Attributes:
        completed: the whole duration was reached without a failure.
        failure: what stopped it.
        time_ps: time survived: the whole duration, or the time of the failure.
        thermo: temperature, energy and volume at each check that passed.
        frames: good structures only: the saved ones and the last good one, with momenta, energy and forces;
            ``info`` holds step, time_fs and target_temperature.
        failed_frame: the structure that failed, None where none did.
    """

    completed: bool
    failure: Failure | None
    time_ps: float
    thermo: Thermo
    frames: list[Atoms]
    failed_frame: Atoms | None = None


def run_md(
    atoms: Atoms,
    calculator: Any,
    settings: MDSettings,
    *,
    failure: FailureSettings | None = None,
    seed: int = 0,
    trajectory: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> MDRun:
    """Run Langevin MD until the end or until the first failure; ``atoms`` is left as it is.

    Args:
        atoms: starting structure; constraints are kept.
        calculator: any ASE calculator.
        settings: the run.
        failure: the checks; None takes their defaults.
        seed: of the starting velocities and of the thermostat.
        trajectory: extxyz file of the good frames. While the run goes on they are appended to ``<trajectory>.part``,
            so that an interrupted run loses none; the final name appears when the run has ended, in failure or not.
        progress: draw a progress bar.

    Raises:
        InputError: no atoms, or a volume ramp without a three-dimensional cell.
    """
    check_start(atoms, settings)
    watch = Watch(settings, failure or FailureSettings())
    runner = _Runner(atoms, calculator, watch, seed)
    steps: Iterable[int] = range(settings.steps + 1)
    if progress:
        steps = console.track(range(settings.steps + 1), "MD")
    with TrajectoryFile(trajectory) as file, np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for step in steps:  # overflow on the way to a failure is expected, and found by the checks
            if not runner.advance(step):
                break
            file.append(watch.frames)
        run = watch.outcome()
        file.append(run.frames)
    return run


def check_start(atoms: Atoms, settings: MDSettings, name: str = "molecular dynamics") -> None:
    """Refuse a structure that a run cannot start from.

    Raises:
        InputError: no atoms, or a volume ramp without a three-dimensional cell.
    """
    if len(atoms) == 0:
        raise InputError(f"{name}: the structure has no atoms")
    if settings.volume_factor != 1.0 and atoms.cell.rank < 3:
        raise InputError(f"{name}: volume_factor needs a structure with a three-dimensional cell")


class Watch:
    """What is seen of a run, by whatever engine: checks, what was measured, and the good frames.

    Attributes:
        settings: of the run.
        thermo: of the steps that passed.
        frames: those to be saved.
        failure: what ended the run.
        failed_frame: the structure that failed.
    """

    def __init__(self, settings: MDSettings, failure: FailureSettings) -> None:
        self.settings = settings
        self.checks = Checks(failure, ramped=settings.volume_factor != 1.0)
        self.thermo = Thermo()
        self.frames: list[Atoms] = []
        self.last_good: Atoms | None = None
        self.failed_frame: Atoms | None = None
        self.failure: Failure | None = None

    def wants(self, step: int) -> bool:
        """Whether a step is to be looked at."""
        return step == self.settings.steps or not (step % self.settings.check_every and step % self.settings.save_every)

    def look(self, atoms: Atoms, step: int) -> bool:
        """Check a structure with its momenta and record it; False when it failed."""
        self.failure = self.check(atoms, step)
        if self.failure is not None:
            self.failed_frame = atoms.copy()
            return False
        energy = atoms.get_potential_energy()
        self.thermo.record(atoms, step * self.settings.timestep / 1000.0, self.settings.target_temperature(step))
        frame = atoms.copy()
        frame.calc = SinglePointCalculator(frame, energy=float(energy), forces=atoms.get_forces().copy())
        frame.info = {
            "step": step,
            "time_fs": step * self.settings.timestep,
            "target_temperature": self.settings.target_temperature(step),
        }
        self.last_good = frame
        if step % self.settings.save_every == 0:
            self.frames.append(frame)
        return True

    def check(self, atoms: Atoms, step: int) -> Failure | None:
        """The check that fails."""
        return self.checks.look(
            atoms,
            step=step,
            time_fs=step * self.settings.timestep,
            target_temperature=self.settings.target_temperature(step),
        )

    def fail(self, step: int, detail: str) -> None:
        """The run ends, for the reason that the engine gives."""
        self.failure = Failure("calculator", step, step * self.settings.timestep, detail=detail)

    def outcome(self) -> MDRun:
        """Of a run that has ended."""
        if self.last_good is not None and (not self.frames or self.frames[-1] is not self.last_good):
            self.frames.append(self.last_good)
        time_fs = self.failure.time_fs if self.failure else self.settings.steps * self.settings.timestep
        return MDRun(self.failure is None, self.failure, time_fs / 1000.0, self.thermo, self.frames, self.failed_frame)


class _Runner:
    """The state of one run between steps."""

    def __init__(self, atoms: Atoms, calculator: Any, watch: Watch, seed: int) -> None:
        self.watch, self.settings = watch, watch.settings
        self.atoms = atoms.copy()
        self.atoms.info = {}
        self.atoms.calc = calculator
        self.initial_cell = atoms.cell.copy()
        velocities, noise = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(2))
        draw_momenta(self.atoms, self.settings.temperature, velocities)
        self.dynamics = Langevin(
            self.atoms,
            self.settings.timestep * units.fs,
            temperature_K=self.settings.temperature,
            friction=self.settings.friction / units.fs,
            fixcm=False,
            rng=noise,
        )

    def advance(self, step: int) -> bool:
        """Take the run to ``step`` (0 only evaluates the start); False when it failed."""
        try:
            if step == 0:
                self.atoms.get_forces()
            else:
                self._ramp(step)
                self.dynamics.step()
        except (ArithmeticError, RuntimeError, ValueError) as error:
            if not self._explained(error, step):
                raise
            return False
        return self.watch.look(self.atoms, step) if self.watch.wants(step) else True

    def _ramp(self, step: int) -> None:
        if (step - 1) % RAMP_EVERY:
            return
        self.dynamics.set_temperature(temperature_K=self.settings.target_temperature(step))
        if self.settings.volume_factor != 1.0:
            progress = min(step - 1 + RAMP_EVERY, self.settings.steps) / self.settings.steps
            factor = 1.0 + (self.settings.volume_factor - 1.0) * progress
            self.atoms.set_cell(self.initial_cell * factor ** (1.0 / 3.0), scale_atoms=True)

    def _explained(self, error: Exception, step: int) -> bool:
        """Whether the dynamics made the calculator raise."""
        watch = self.watch
        watch.failure = watch.check(self.atoms, step)
        if watch.failure is None and isinstance(error, ArithmeticError | ComputationError):
            watch.fail(step, f"{type(error).__name__}: {error}")
        watch.failed_frame = self.atoms.copy()
        return watch.failure is not None


def draw_momenta(atoms: Atoms, temperature: float, rng: np.random.Generator) -> None:
    """Maxwell-Boltzmann momenta without a drift of the centre of mass."""
    masses = atoms.get_masses()[:, None]
    momenta = np.sqrt(masses * units.kB * temperature) * rng.standard_normal((len(atoms), 3))
    if len(atoms) > 1:
        momenta -= masses / masses.sum() * momenta.sum(axis=0)
    atoms.set_momenta(momenta)


class TrajectoryFile:
    """Appends new frames to ``<path>.part`` and renames it when the run has ended."""

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        self.path = Path(path) if path is not None else None
        self.written = 0

    def __enter__(self) -> TrajectoryFile:
        if self.path is not None:
            make_folder(self.path.parent)
            self.part.unlink(missing_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.path is None or not self.part.exists():
            return
        if kind is None:
            self.part.replace(self.path)
        else:
            logger.warning("interrupted; the frames up to here are in %s", self.part)

    @property
    def part(self) -> Path:
        assert self.path is not None  # noqa: S101  # for the type checker; callers look first
        return self.path.with_name(self.path.name + ".part")

    def append(self, frames: list[Atoms]) -> None:
        """Write those of ``frames`` that were not there at the last call."""
        if self.path is None or self.written == len(frames):
            return
        write(self.part, frames[self.written :], format="extxyz", append=True)
        self.written = len(frames)
