"""Molecular dynamics that watches itself: a run of any ensemble, with ramps, stops when it fails, and can go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms, units

from pretrain_mlip import console
from pretrain_mlip.dynamics.ensembles import Integrator
from pretrain_mlip.dynamics.failure import FailureSettings
from pretrain_mlip.dynamics.protocols import MDSettings
from pretrain_mlip.dynamics.restart import RestartFile, identity_of
from pretrain_mlip.dynamics.watch import MDRun, Thermo, TrajectoryFile, Watch
from pretrain_mlip.errors import ComputationError, InputError

if TYPE_CHECKING:
    import os

    from pretrain_mlip.dynamics.rdf import RDF

__all__ = ["MDRun", "MDSettings", "Thermo", "run_md"]
RAMP_EVERY = 10  # steps between changes of the targets and of the cell: small steps, few extra force calls


def run_md(
    atoms: Atoms,
    calculator: Any,
    settings: MDSettings,
    *,
    failure: FailureSettings | None = None,
    seed: int = 0,
    trajectory: str | os.PathLike[str] | None = None,
    resume: bool = False,
    reference: RDF | None = None,
    progress: bool = False,
) -> MDRun:
    """Run MD until the end or until the first failure; ``atoms`` is left as it is.

    Args:
        atoms: starting structure; constraints are kept.
        calculator: any ASE calculator.
        settings: the run.
        failure: the checks; None takes their defaults.
        seed: of the starting velocities and of the thermostat.
        trajectory: extxyz file of the good frames. While the run goes on they are appended to ``<trajectory>.part``,
            so that an interrupted run loses none; the final name appears when the run has ended, in failure or not.
            The structure that failed goes to ``<trajectory's stem>.failed.extxyz``.
        resume: go on where the run of this trajectory was interrupted, from its last saved frame, with the same random
            numbers; what is not there starts anew. Calculators round forces by what they did before, so that the run
            is another one than without the interruption in the end, and as good.
        reference: what ``failure.rdf_deviation`` compares with.
        progress: draw a progress bar.

    Raises:
        InputError: no atoms, an ensemble or a volume ramp that the structure cannot have; or the run that is to go on
            is another one, or has ended.
    """
    check_start(atoms, settings)
    settings = settings.of(atoms)
    checks = failure or FailureSettings()
    watch = Watch(settings, checks, reference)
    runner = _Runner(atoms, calculator, watch, seed)
    file = TrajectoryFile(trajectory, append=resume)
    identity = identity_of(atoms, seed=seed, **settings.model_dump(), failure=checks.model_dump(mode="json"))
    restart = RestartFile(file, identity)
    if resume:
        restart.refuse_ended()
    else:
        restart.remove()
    with file, np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        # overflow on the way to a failure is expected, and found by the checks
        first = runner.restart(restart) if resume else 0
        steps = range(first, settings.steps + 1)
        for step in console.track(steps, "MD", note=watch.note, drawn=progress):
            if not runner.advance(step):
                break
            if step % settings.save_every == 0:
                file.append(watch.frames)
                restart.save(step, runner.integrator, watch)
        run = watch.outcome()
        file.append(run.frames)
        file.write_failed(run)
    restart.remove()
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


class _Runner:
    """The state of one run between steps."""

    def __init__(self, atoms: Atoms, calculator: Any, watch: Watch, seed: int) -> None:
        self.watch, self.settings = watch, watch.settings
        self.atoms = atoms.copy()
        self.atoms.info = {}
        self.atoms.calc = calculator
        self.initial_cell = atoms.cell.array.copy()
        velocities, noise = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(2))
        draw_momenta(self.atoms, self.settings.temperature, velocities)
        self.integrator = Integrator(self.atoms, self.settings, noise)

    def restart(self, file: RestartFile) -> int:
        """Go on from a file; the step that comes next."""
        done = file.restore(self.integrator, self.watch)
        if done % RAMP_EVERY:
            self._set_targets(done + 1 - done % RAMP_EVERY)
        return done + 1

    def advance(self, step: int) -> bool:
        """Take the run to ``step`` (0 only evaluates the start); False when it failed."""
        try:
            if step == 0:
                self.atoms.get_forces()
            else:
                self._ramp(step)
                self.integrator.step()
        except (ArithmeticError, RuntimeError, ValueError) as error:
            if not self._explained(error, step):
                raise
            return False
        return self.watch.look(self.atoms, step) if self.watch.wants(step) else True

    def _ramp(self, step: int) -> None:
        if (step - 1) % RAMP_EVERY:
            return
        self._set_targets(step)
        if self.settings.volume_factor != 1.0:
            reached = min(step - 1 + RAMP_EVERY, self.settings.steps)
            self.atoms.set_cell(self.initial_cell * self.settings.stretch(reached), scale_atoms=True)
            self.integrator.notice()

    def _set_targets(self, step: int) -> None:
        self.integrator.set_targets(self.settings.target_temperature(step), self.settings.target_pressure(step))

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
