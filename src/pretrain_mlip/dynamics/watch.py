"""What is seen of a run, by whatever engine: its checks, what was measured, the good frames and their file."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from pretrain_mlip.dynamics.detection import Checks
from pretrain_mlip.dynamics.failure import Failure, FailureSettings
from pretrain_mlip.files import make_folder

if TYPE_CHECKING:
    import os

    from pretrain_mlip.dynamics.protocols import MDSettings
    from pretrain_mlip.dynamics.rdf import RDF

logger = logging.getLogger(__name__)


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


class Watch:
    """Looks at a run as it goes on.

    Attributes:
        settings: of the run, with a time step.
        thermo: of the steps that passed.
        frames: those to be saved.
        failure: what ended the run.
        failed_frame: the structure that failed.
    """

    def __init__(self, settings: MDSettings, failure: FailureSettings, reference: RDF | None = None) -> None:
        self.settings = settings
        self.checks = Checks(
            failure,
            conserved=settings.conserves_energy,
            ramped=settings.volume_factor != 1.0,
            reference=reference,
        )
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
        self.thermo.record(atoms, step * self.settings.step_fs / 1000.0, self.settings.target_temperature(step))
        frame = atoms.copy()
        frame.calc = SinglePointCalculator(frame, energy=float(energy), forces=atoms.get_forces().copy())
        frame.info = {
            "step": step,
            "time_fs": step * self.settings.step_fs,
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
            time_fs=step * self.settings.step_fs,
            target_temperature=self.settings.target_temperature(step),
        )

    def note(self) -> str:
        """How the run is doing, in a few words."""
        thermo = self.thermo
        if self.last_good is None or not thermo.temperature:
            return ""
        return f"{thermo.temperature[-1]:.0f} K, {thermo.potential_energy[-1] / len(self.last_good):.3f} eV/atom"

    def fail(self, step: int, detail: str) -> None:
        """The run ends, for the reason that the engine gives."""
        self.failure = Failure("calculator", step, step * self.settings.step_fs, detail=detail)

    def outcome(self) -> MDRun:
        """Of a run that has ended."""
        if self.last_good is not None and (not self.frames or self.frames[-1] is not self.last_good):
            self.frames.append(self.last_good)
        time_fs = self.failure.time_fs if self.failure else self.settings.steps * self.settings.step_fs
        return MDRun(self.failure is None, self.failure, time_fs / 1000.0, self.thermo, self.frames, self.failed_frame)


class TrajectoryFile:
    """Appends new frames to ``<path>.part`` and renames it when the run has ended."""

    def __init__(self, path: str | os.PathLike[str] | None, *, append: bool = False) -> None:
        """Nothing is written yet.

        Args:
            path: extxyz file; None writes nothing.
            append: keep the frames that an interrupted run has left in ``<path>.part``.
        """
        self.path = Path(path) if path is not None else None
        self.keep, self.written = append, 0

    def __enter__(self) -> TrajectoryFile:
        if self.path is not None:
            make_folder(self.path.parent)
            if not self.keep:
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

    def write_failed(self, run: MDRun) -> None:
        """The structure that failed, in ``<name>.failed.extxyz`` beside the trajectory."""
        if self.path is None:
            return
        path = self.path.with_name(f"{self.path.stem}.failed.extxyz")
        path.unlink(missing_ok=True)
        if run.failed_frame is not None and run.failure is not None:
            frame = run.failed_frame.copy()
            frame.info = {"step": run.failure.step, "time_fs": run.failure.time_fs, "failure": run.failure.message()}
            write(path, frame, format="extxyz")
