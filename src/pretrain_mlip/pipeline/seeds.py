"""Several runs that differ in their seeds alone, and what they say together."""

from __future__ import annotations

import logging
import math
import shutil
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pretrain_mlip.config import RunConfig
from pretrain_mlip.dynamics.kaplan_meier import survival_section
from pretrain_mlip.dynamics.survival import ReplicaResult, StabilitySettings
from pretrain_mlip.files import atomic_path, make_folder
from pretrain_mlip.pipeline.folder import RunFolder
from pretrain_mlip.pipeline.strategies import trained_strategies
from pretrain_mlip.potentials.checkpoint import read_checkpoint
from pretrain_mlip.report.results import ErrorRow, PhononBands, Results, VerificationRow

log = logging.getLogger(__name__)
GRADES = "-PABCDF"  # from the best to the worst


def seed_configs(config: RunConfig) -> list[RunConfig]:
    """The runs of a configuration with several seeds: each in a folder ``seed-N`` of its own.

    Weights, order of structures, replicas, starts of the EAM's fit and perturbations differ; the split is the same.
    """
    folder = Path(config.output).absolute()  # workers may be elsewhere

    def with_replicas(campaign: StabilitySettings | None, number: int) -> StabilitySettings | None:
        """A campaign whose replicas have seeds of their own: each adds its number and the seed of the run."""
        if campaign is None:
            return None
        return campaign.model_copy(update={"seed": campaign.seed + number * (campaign.replicas - 1)})

    return [
        config.model_copy(
            update={
                "output": str(folder / f"seed-{config.seed + number}"),
                "seeds": 1,
                "seed": config.seed + number,
                "eam": config.eam.model_copy(update={"seed": config.eam.seed + number}),
                "perturbation": config.perturbation.model_copy(update={"seed": config.perturbation.seed + number}),
                "stability": with_replicas(config.stability, number),
                "squeeze": with_replicas(config.squeeze, number),
            }
        )
        for number in range(config.seeds)
    ]


def combined(runs: Sequence[Results], config: RunConfig) -> Results:
    """Results of several seeds: means of errors with those of each beside, all replicas, the rest of the first.

    Of checks and of phonons those of the seed that does worst, since any of them may be the one that is used.
    """
    first = runs[0]
    content = first.model_dump(exclude_unset=True)
    content |= {
        "title": f"pretrain-mlip: {Path(config.output).name}",
        "errors": {model: _mean_rows([(run.errors or {})[model] for run in runs]) for model in first.errors or {}},
        "seed_errors": {model: [(run.errors or {})[model]["all"] for run in runs] for model in first.errors or {}},
        "survival": _pooled([run.survival for run in runs]),
        "squeeze": _pooled([run.squeeze for run in runs]),
        "verification": _worst_checks([run.verification for run in runs]),
        "phonons": _worst_phonons([run.phonons for run in runs]),
        "timings": _summed([run.timings or {} for run in runs]),
        "config": config.model_dump(mode="json"),
    }
    if first.provenance is not None:
        seeds = [run.provenance.seeds if run.provenance else {} for run in runs]
        content["provenance"] |= {
            "created": max(run.provenance.created for run in runs if run.provenance),
            "seeds": {name: [one.get(name) for one in seeds] for name in seeds[0]},
        }
    return Results.model_validate(content)


def take_best(folder: RunFolder, members: Sequence[RunFolder], config: RunConfig) -> None:
    """Copy the potentials with the lowest validation error to where those of a single run are."""
    for name in trained_strategies(config):
        errors = [_validation_error(member, name, config.ensemble) for member in members]
        best = members[errors.index(min(errors))]
        make_folder(folder.model(name))
        with atomic_path(folder.potential(name)) as temporary:
            shutil.copyfile(best.potential(name), temporary)
        log.info("%s: %s is that of %s", name, folder.potential(name), best.path.name)


def _validation_error(folder: RunFolder, name: str, ensemble: int) -> float:
    """That of the metric which chose the best epoch; the mean of an ensemble's members."""
    last = [folder.training(name, member, ensemble) / "last.pt" for member in range(ensemble)]
    return statistics.fmean(read_checkpoint(path)["training"]["best"] for path in last)


def _of_all(sections: Sequence[Mapping[str, Any] | None]) -> list[Mapping[str, Any]]:
    """The sections, where every seed has one."""
    known = [section for section in sections if section is not None]
    return known if len(known) == len(sections) else []


def _worst_checks(sections: Sequence[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """Each check of each model as it ended worst."""

    def badness(row: VerificationRow) -> tuple[int, float]:
        return GRADES.index(row.grade), math.inf if row.error is None else row.error

    if not (known := _of_all(sections)):
        return None
    return {
        model: {name: max((section[model][name] for section in known), key=badness) for name in checks}
        for model, checks in known[0].items()
    }


def _worst_phonons(sections: Sequence[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """Those of the seed that has none, or else the lowest frequency."""

    def badness(entry: PhononBands) -> tuple[bool, bool, float]:
        return bool(entry.failed), entry.imaginary, -(entry.lowest or 0.0)

    if not (known := _of_all(sections)):
        return None
    return {
        crystal: {model: max((section[crystal][model] for section in known), key=badness) for model in found}
        for crystal, found in known[0].items()
    }


def _mean_rows(rows: Sequence[Mapping[str, ErrorRow]]) -> dict[str, dict[str, Any]]:
    """Mean errors of each kind of structures; frames are the same in all."""
    means = {}
    for kind, first in rows[0].items():
        values = {name: [getattr(one[kind], name) for one in rows] for name in ErrorRow.model_fields}
        mean = {name: statistics.fmean(found) for name, found in values.items() if None not in found}
        means[kind] = mean | {"frames": first.frames, "atoms": first.atoms}
    return means


def _pooled(sections: Sequence[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """Survival of the replicas of all seeds together."""
    if not (known := _of_all(sections)):
        return None
    pooled = {}
    for model, first in known[0].items():
        replicas = [
            ReplicaResult.from_dict(replica) for section in known for replica in section[model].model_dump()["replicas"]
        ]
        pooled[model] = survival_section(replicas, first.summary.duration_ps)
    return pooled


def _summed(times: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: sum(one.get(name, 0.0) for one in times) for name in times[0]}
