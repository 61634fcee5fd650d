"""A stability campaign: any potentials, several protocols, in a folder that can be left and taken up again."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from pretrain_mlip.dynamics.kaplan_meier import survival_section
from pretrain_mlip.dynamics.protocols import PROTOCOLS, MDSettings
from pretrain_mlip.dynamics.replica_store import ReplicaStore
from pretrain_mlip.dynamics.survival import StabilitySettings, check_starts, run_replicas
from pretrain_mlip.errors import InputError
from pretrain_mlip.files import locked, make_folder, read_json
from pretrain_mlip.parallel import Workers
from pretrain_mlip.pipeline.provenance import provenance
from pretrain_mlip.report.results import FILE_NAME, Provenance
from pretrain_mlip.report.stability import (
    StabilityResults,
    StabilityTrial,
    logrank_table,
    write_stability_report,
)
from pretrain_mlip.settings import flattened, validate

if TYPE_CHECKING:
    from ase import Atoms

    from pretrain_mlip.calculators.sources import Source

NAME = re.compile(r"[^A-Za-z0-9._+-]+")


class CampaignSettings(StabilitySettings):
    """Replicas of any potentials."""

    replicas: int = Field(default=10, ge=1, description="runs of each potential in each trial")
    temperatures: list[float] = Field(
        default_factory=list,
        description="temperatures in K at the start: a trial with all replicas at each; empty: that of the protocol",
    )
    trajectories: bool = Field(default=False, description="keep a trajectory of each replica")
    workers: int = Field(default=1, ge=1, description="processes, each on one thread")
    scheduler: str | None = Field(default=None, description="address of a Dask scheduler, whose workers are taken")


def read_trials(protocols: Sequence[str], content: Mapping[str, Any], source: str) -> dict[str, CampaignSettings]:
    """Settings of each protocol at each temperature.

    Args:
        protocols: names in PROTOCOLS.
        content: settings, which change those of every protocol.
        source: of the settings, for messages.

    Raises:
        InputError: a protocol or a setting is unknown or wrong.
    """
    trials = {}
    for protocol in dict.fromkeys(protocols):
        if protocol not in PROTOCOLS:
            raise InputError(f"protocol '{protocol}': expected one of {', '.join(PROTOCOLS)}")
        changes = content.get("md") or {}
        if not isinstance(changes, Mapping):
            raise InputError(f"{source}: md: a group of settings is expected, such as md.duration_ps=10")
        md = PROTOCOLS[protocol].model_dump() | dict(changes)
        settings = validate(CampaignSettings, {**content, "md": md}, source)
        if not settings.temperatures:
            trials[protocol] = settings
        for temperature in dict.fromkeys(settings.temperatures):
            changed = validate(MDSettings, {**md, "temperature": temperature}, source)
            trials[f"{protocol}_{temperature:g}K"] = settings.model_copy(update={"md": changed})
    return trials


def spread_evenly(number: int) -> list[int]:
    """An order of structures in which the first few are far apart, however few: that of reversed bits.

    Replicas that are added later leave the starts of the others as they are.
    """
    bits = max(1, (number - 1).bit_length())
    return sorted(range(number), key=lambda place: f"{place:0{bits}b}"[::-1])


def names_of(sources: Sequence[Source], places: Sequence[str]) -> list[str]:
    """A name for each potential that can be part of a file name; of its whole place where short ones are the same.

    Raises:
        InputError: the same potential is there twice.
    """
    if len(set(places)) < len(places):
        raise InputError(f"stability: the same potential is given twice: {', '.join(places)}")
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        names = places
    return [NAME.sub("-", name).strip("-.") for name in names]


def run_stability(
    potentials: Mapping[str, Source],
    structures: Sequence[Atoms],
    trials: Mapping[str, CampaignSettings],
    output: Path,
    *,
    data: str,
    baseline: str | None = None,
) -> Path:
    """Run every trial that is not done, and write results.json and report.html after each.

    Args:
        potentials: name -> where its calculators come from.
        structures: as they were read; replicas start from some of them, see ``spread_evenly``.
        trials: name -> settings, see ``read_trials``.
        output: folder; a campaign that was interrupted in it goes on.
        data: where the structures were read from.
        baseline: the potential that others are compared with; None for the first.

    Returns:
        Path of the report.

    Raises:
        InputError: the folder holds another campaign, or something cannot be used.
    """
    _earlier(output)  # refuses what is no campaign before anything is written there
    make_folder(output)
    identities = {name: source.identity for name, source in potentials.items()}
    makers = {name: source.make for name, source in potentials.items()}
    settings = next(iter(trials.values()))
    chosen = spread_evenly(len(structures))[: settings.replicas]
    starts = [structures[number] for number in chosen]
    for trial in trials.values():
        check_starts(starts, trial)
    with locked(output), Workers(settings.workers, settings.scheduler, output) as workers:
        results = _earlier(output)
        for name, trial in trials.items():
            folder = output / "replicas" / name
            found = run_replicas(
                makers,
                starts,
                trial,
                workers=workers,
                store=ReplicaStore(folder, identities),
                trajectories=output / "trajectories" / name if trial.trajectories else None,
            )
            starts_at = [f"{data}[{number}], {structures[number].get_chemical_formula()}" for number in chosen]
            survival = {model: survival_section(replicas, trial.md.duration_ps) for model, replicas in found.items()}
            results[name] = _trial(trial, starts_at, survival, results.get(name), baseline)
            _write(output, results, potentials, settings, data)
            write_stability_report(output)
    return output / "report.html"


def _trial(
    settings: StabilitySettings,
    starts: list[str],
    survival: dict[str, Any],
    earlier: StabilityTrial | None,
    baseline: str | None,
) -> StabilityTrial:
    """The results of a trial, with those potentials of an earlier one under the same settings that are not run now."""
    md, failure = settings.md.model_dump(mode="json"), settings.failure.model_dump(mode="json")
    if earlier is not None and (earlier.md, earlier.failure) == (md, failure):
        known = {model: section.model_dump() for model, section in earlier.survival.items()}
        survival = known | survival
        baseline = baseline or earlier.baseline
    baseline = baseline or next(iter(survival))
    content = {"description": describe(settings), "md": md, "failure": failure, "structures": starts}
    compared = {"baseline": baseline, "survival": survival, "logrank": logrank_table(survival, baseline)}
    return StabilityTrial.model_validate(content | compared)


def describe(trial: StabilitySettings) -> str:
    """A run in words: what differs from the settings of any run."""
    plain = flattened(MDSettings().model_dump())
    given = {key: value for key, value in flattened(trial.md.model_dump()).items() if value != plain.get(key)}
    shown = {"ensemble": trial.md.ensemble, "duration_ps": trial.md.duration_ps, "temperature": trial.md.temperature}
    listed = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in (shown | given).items())
    return f"{trial.replicas} replicas, the same for every potential: {listed}."


def _earlier(output: Path) -> dict[str, StabilityTrial]:
    """Trials that are there.

    Raises:
        InputError: the folder holds something else.
    """
    path = output / FILE_NAME
    if not path.exists():
        if (output / "config.yaml").exists():
            raise InputError(f"{output}: is the folder of a run; choose another output")
        return {}
    content = read_json(path)
    if not isinstance(content, dict) or content.get("kind") != "stability":
        raise InputError(f"{path}: is not of a stability campaign; choose another output")
    return StabilityResults.read(output).trials


def _write(
    output: Path,
    trials: Mapping[str, StabilityTrial],
    potentials: Mapping[str, Source],
    settings: CampaignSettings,
    data: str,
) -> None:
    files = [source.path for source in potentials.values() if source.path]
    origin = provenance(
        seeds={"replicas": settings.seed},
        data=dict.fromkeys([*files, Path(data)]),
        hardware={"workers": settings.workers},
    )
    title = "Stability in molecular dynamics"
    StabilityResults(title=title, provenance=Provenance(**origin), trials=dict(trials)).write(output)
