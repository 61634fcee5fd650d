"""How long do potentials survive? The same replicas for every potential, and Kaplan-Meier statistics of what happened.

Replica k of every potential starts from the same structure with the same velocities and the same thermostat noise.
"""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field
from scipy import stats

from pretrain_mlip import console
from pretrain_mlip.dynamics.failure import Failure, FailureSettings
from pretrain_mlip.dynamics.md import check_start, run_md
from pretrain_mlip.dynamics.protocols import MDSettings
from pretrain_mlip.dynamics.watch import Thermo
from pretrain_mlip.errors import InputError
from pretrain_mlip.parallel import Workers
from pretrain_mlip.settings import Settings
from pretrain_mlip.structures.io import name_of

if TYPE_CHECKING:
    import os

    from ase import Atoms

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
        frames: good structures of the run; not part of the JSON.
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
    frames: list[Atoms] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain types without the frames, ready for JSON; the course of the run is kept to six digits."""
        content = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "frames"}
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


def run_replicas(
    potentials: Mapping[str, CalculatorFactory],
    structures: Sequence[Atoms],
    settings: StabilitySettings,
    *,
    workers: int | Workers = 1,
    trajectories: str | os.PathLike[str] | None = None,
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
        trajectories: folder for one extxyz file per replica, ``<potential>-<replica>.extxyz``.

    Returns:
        Results of each potential in order of the replica.

    Raises:
        InputError: no structure or one that no run can start from, or a potential that cannot be used (a missing file,
            an unknown element).
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
    with Workers(workers) if isinstance(workers, int) else nullcontext(workers) as pool:
        finished = pool.run(_run, tasks) if pool.several else _run_here(tasks)
        return _collected(potentials, finished, len(tasks))


def _collected(
    names: Iterable[str], finished: Iterator[tuple[_Task, ReplicaResult | Exception]], number: int
) -> dict[str, list[ReplicaResult]]:
    results: dict[str, list[ReplicaResult]] = {name: [] for name in names}
    for task, result in console.track(finished, "MD replicas", total=number):
        if isinstance(result, Exception):
            error = f"{type(result).__name__}: {result}"
            logger.warning("replica %d of %s crashed (%s)", task.replica, task.potential, error)
            results[task.potential].append(task.result("crashed", 0.0, error=error))
        else:
            results[task.potential].append(result)
    return {name: sorted(found, key=lambda result: result.replica) for name, found in results.items()}


def check_starts(structures: Sequence[Atoms], settings: StabilitySettings) -> None:
    """Refuse structures before anything is computed.

    Raises:
        InputError: there is none, or a replica could not start from one of them.
    """
    if not structures:
        raise InputError("stability: no starting structure given")
    for number, atoms in enumerate(structures[: settings.replicas]):
        check_start(atoms, settings.md, f"stability: {name_of(atoms, number)}")


def survival_curve(
    times: Sequence[float], failed: Sequence[bool], confidence_level: float = 0.95
) -> dict[str, list[float]]:
    """Kaplan-Meier estimate of the fraction that survives a time, with a log-log confidence band.

    Args:
        times: time of the failure, or the time up to which a survivor was watched.
        failed: whether the replica failed at that time.
        confidence_level: of the pointwise band.

    Returns:
        ``time``, ``fraction``, ``low``, ``high``: corners of a step function that starts at time 0 and holds each value
        until the next time. Where the band is undefined it is [1, 1] before the first failure, and after the last
        survivor it goes from 0 to the upper bound before.
    """
    when, dead = np.asarray(times, dtype=float), np.asarray(failed, dtype=bool)
    if when.size == 0:
        raise InputError("survival curve: no replica")
    survivors = stats.ecdf(stats.CensoredData.right_censored(when, ~dead)).sf
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # scipy warns where the band is undefined; filled below
        band = survivors.confidence_interval(confidence_level, method="log-log")
    curve: dict[str, list[float]] = {"time": [0.0], "fraction": [1.0], "low": [1.0], "high": [1.0]}
    for time, fraction, low, high in zip(
        survivors.quantiles, survivors.probabilities, band.low.probabilities, band.high.probabilities, strict=True
    ):
        undefined = (1.0, 1.0) if fraction == 1.0 else (0.0, curve["high"][-1])
        curve["time"].append(float(time))
        curve["fraction"].append(float(fraction))
        curve["low"].append(float(low) if np.isfinite(low) else undefined[0])
        curve["high"].append(float(high) if np.isfinite(high) else undefined[1])
    return curve


def survival_summary(results: Sequence[ReplicaResult], duration_ps: float) -> dict[str, Any]:
    """Numbers of a survival campaign. A crashed replica counts as failed at time 0.

    Args:
        results: all replicas of one potential.
        duration_ps: time after which a replica has passed.

    Returns:
        ``replicas``; ``median_ps`` (None when more than half survive); ``mean_ps`` restricted to the duration, the area
        under the Kaplan-Meier curve; ``area``, that area over the duration (1 = all survive); ``stable_fraction`` of
        replicas that completed; ``failures``, how often each check fired; ``duration_ps``.
    """
    curve = survival_curve([r.time_ps for r in results], [r.outcome != "completed" for r in results])
    time, fraction = np.array(curve["time"]), np.array(curve["fraction"])
    below = np.flatnonzero(fraction <= 0.5)
    widths = np.diff(np.append(np.minimum(time, duration_ps), duration_ps))
    mean = float(np.sum(fraction * widths))
    failures = Counter(r.failure.check if r.failure else r.outcome for r in results if r.outcome != "completed")
    return {
        "replicas": len(results),
        "median_ps": float(time[below[0]]) if below.size else None,
        "mean_ps": mean,
        "area": mean / duration_ps,
        "stable_fraction": sum(r.outcome == "completed" for r in results) / len(results),
        "failures": dict(sorted(failures.items())),
        "duration_ps": duration_ps,
    }


def _run(task: _Task) -> ReplicaResult:
    run = run_md(
        task.atoms,
        task.factory(),
        task.settings.md,
        failure=task.settings.failure,
        seed=task.seed,
        trajectory=task.trajectory,
    )
    outcome = "completed" if run.completed else "failed"
    return task.result(outcome, run.time_ps, failure=run.failure, thermo=run.thermo, frames=run.frames)


def _run_here(tasks: Sequence[_Task]) -> Iterator[tuple[_Task, ReplicaResult | Exception]]:
    for task in tasks:
        try:
            yield task, _run(task)
        except InputError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever a foreign calculator raises is an outcome of the campaign
            yield task, error
