"""How long do potentials survive? The same replicas for every potential.

Replica k of every potential starts from the same structure with the same velocities and the same thermostat noise.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from pretrain_mlip import console
from pretrain_mlip.dynamics.failure import Failure, FailureSettings
from pretrain_mlip.dynamics.md import check_start, run_md
from pretrain_mlip.dynamics.protocols import MDSettings
from pretrain_mlip.dynamics.restart import identity_of, restart_path
from pretrain_mlip.dynamics.sites import failure_site
from pretrain_mlip.dynamics.watch import Thermo
from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.files import disk_fails
from pretrain_mlip.parallel import Workers
from pretrain_mlip.settings import Settings
from pretrain_mlip.structures.io import name_of

if TYPE_CHECKING:
    import os

    from ase import Atoms

    from pretrain_mlip.dynamics.replica_store import ReplicaStore

logger = logging.getLogger(__name__)
CalculatorFactory = Callable[[], Any]


class StabilitySettings(Settings):
    """A survival campaign."""

    replicas: int = Field(default=8, ge=1, description="runs of each potential")
    md: MDSettings = Field(default_factory=MDSettings, description="the run that every replica makes")
    failure: FailureSettings = Field(default_factory=FailureSettings, description="when a replica counts as failed")
    seed: int = Field(
        default=0,
        ge=0,
        description="seed of replica 0; replica k takes seed + k, and a run adds its seed",
    )


@dataclass
class ReplicaResult:
    """What happened to one replica.

    Attributes:
        potential: name of the potential.
        replica: number of the replica.
        structure: index of its starting structure.
        seed: seed of its velocities and its thermostat.
        outcome: "completed", "failed" (a check fired) or "crashed" (the program ended; ``error`` says how).
        time_ps: time survived in ps; 0 for a crash, since nobody saw when it happened.
        failure: the check that fired.
        error: text of the error of a crash.
        thermo: temperature, energy and volume in the course of the run.
        site: the atoms at fault and their surroundings, see ``failure_site``.
        frames: good structures of the run; not part of the JSON.
        failed_frame: the structure that failed; not part of the JSON.
    """

    potential: str
    replica: int
    structure: int
    seed: int
    outcome: str
    time_ps: float
    failure: Failure | None = None
    error: str = ""
    thermo: Thermo = field(default_factory=Thermo)
    site: dict[str, Any] | None = None
    frames: list[Atoms] = field(default_factory=list)
    failed_frame: Atoms | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain types without structures, ready for JSON; the course of the run is kept to six digits."""
        names = [f.name for f in dataclasses.fields(self) if f.name not in ("frames", "failed_frame")]
        content = {name: getattr(self, name) for name in names}
        content["failure"] = self.failure.to_dict() if self.failure else None
        thermo = dataclasses.asdict(self.thermo)
        content["thermo"] = {name: [float(f"{x:.6g}") for x in values] for name, values in thermo.items()}
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> ReplicaResult:
        """The inverse of ``to_dict``, up to the rounding."""
        failure = Failure.from_dict(content["failure"]) if content["failure"] else None
        return cls(**{**content, "failure": failure, "thermo": Thermo(**content["thermo"])})


@dataclass(frozen=True)
class _Task:
    potential: str
    factory: CalculatorFactory
    replica: int
    structure: int
    atoms: Atoms
    seed: int
    settings: StabilitySettings
    trajectory: Path | None

    def result(self, outcome: str, time_ps: float, **found: Any) -> ReplicaResult:
        return ReplicaResult(self.potential, self.replica, self.structure, self.seed, outcome, time_ps, **found)

    def identity(self) -> dict[str, Any]:
        """What the result depends on, but for the potential."""
        settings = self.settings.model_dump(mode="json", include={"md", "failure"})
        return identity_of(self.atoms, seed=self.seed, **settings)


def run_replicas(
    potentials: Mapping[str, CalculatorFactory],
    structures: Sequence[Atoms],
    settings: StabilitySettings,
    *,
    workers: int | Workers = 1,
    trajectories: str | os.PathLike[str] | None = None,
    store: ReplicaStore | None = None,
) -> dict[str, list[ReplicaResult]]:
    """Run every replica of every potential.

    With more than one worker each runs in a process of its own, started afresh ("spawn"): a script that calls this
    needs ``if __name__ == "__main__":``, and the factories must be picklable, such as
    ``functools.partial(PretrainedMLIP.load, path)``. A process that dies takes only its replica with it.

    Args:
        potentials: name -> callable that makes an ASE calculator.
        structures: starting structures; replica k takes number k modulo their count.
        settings: the campaign.
        workers: number of processes, each on one thread, or those that are there already; 1 runs all in this process.
        trajectories: folder for one extxyz file per replica, ``<potential>-<replica>.extxyz``. A replica that was
            interrupted goes on from the last frame in it.
        store: where replicas are kept as they end. Those that are there already are not run again, and come without
            frames.

    Returns:
        Results of each potential in order of the replica.

    Raises:
        InputError: no structure or one that no run can start from, a potential that cannot be used (a missing file,
            an unknown element), or the store holds another campaign.
        ComputationError: the disk is full.
    """
    check_starts(structures, settings)
    folder = Path(trajectories) if trajectories is not None else None
    tasks = []
    for replica in range(settings.replicas):  # replicas outermost: an interrupted campaign is still a fair comparison
        index = replica % len(structures)
        atoms = structures[index].copy()  # leaves the labels and their calculator behind: lighter to send
        for name, factory in potentials.items():
            path = folder / f"{name}-{replica:03d}.extxyz" if folder is not None else None
            tasks.append(_Task(name, factory, replica, index, atoms, settings.seed + replica, settings, path))
    results: dict[str, list[ReplicaResult]] = {name: [] for name in potentials}
    if store is not None:
        known = {id(task): store.find(task.potential, task.replica, task.identity()) for task in tasks}
        for result in filter(None, known.values()):
            results[result.potential].append(result)
        tasks = [task for task in tasks if known[id(task)] is None]
    with Workers(workers) if isinstance(workers, int) else nullcontext(workers) as pool:
        finished = pool.run(_run, tasks) if pool.several else _run_here(tasks)
        for task, outcome in console.track(finished, "MD replicas", total=len(tasks)):
            result = _recorded(task, outcome)
            results[task.potential].append(result)
            if store is not None:
                store.keep(result, task.identity())
    return {name: sorted(found, key=lambda result: result.replica) for name, found in results.items()}


def _recorded(task: _Task, outcome: ReplicaResult | Exception) -> ReplicaResult:
    if isinstance(outcome, ReplicaResult):
        return outcome
    if disk_fails(outcome):  # says nothing about the potential
        raise ComputationError(
            f"replica {task.replica} of {task.potential} cannot be written ({outcome}): make room on the disk, or look "
            "what ails it, and start again; replicas that have ended are kept"
        ) from outcome
    error = f"{type(outcome).__name__}: {outcome}"
    logger.warning("replica %d of %s crashed (%s)", task.replica, task.potential, error)
    return task.result("crashed", 0.0, error=error)


def check_starts(structures: Sequence[Atoms], settings: StabilitySettings) -> None:
    """Refuse structures before anything is computed.

    Raises:
        InputError: there is none, or a replica could not start from one of them.
    """
    if not structures:
        raise InputError("stability: no starting structure given")
    for number, atoms in enumerate(structures[: settings.replicas]):
        check_start(atoms, settings.md, f"stability: {name_of(atoms, number)}")


def _run(task: _Task) -> ReplicaResult:
    run = run_md(
        task.atoms,
        task.factory(),
        task.settings.md,
        failure=task.settings.failure,
        seed=task.seed,
        trajectory=task.trajectory,
        resume=task.trajectory is not None and restart_path(task.trajectory).exists(),
    )
    site = None
    if run.failure is not None and run.failed_frame is not None:
        site = failure_site(run.failed_frame, run.failure.atoms)
    found = {"failure": run.failure, "thermo": run.thermo, "site": site}
    outcome = "completed" if run.completed else "failed"
    return task.result(outcome, run.time_ps, **found, frames=run.frames, failed_frame=run.failed_frame)


def _run_here(tasks: Sequence[_Task]) -> Iterator[tuple[_Task, ReplicaResult | Exception]]:
    for task in tasks:
        try:
            yield task, _run(task)
        except InputError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever a foreign calculator raises is an outcome of the campaign
            yield task, error
