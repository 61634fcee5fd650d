"""A study: the same comparison on several systems and with several architectures, from one file."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import Field

from pretrain_mlip.config import RunConfig
from pretrain_mlip.errors import InputError
from pretrain_mlip.files import make_folder, write_text
from pretrain_mlip.graphs.graph import device_named
from pretrain_mlip.parallel import Workers
from pretrain_mlip.pipeline.folder import RunFolder
from pretrain_mlip.pipeline.one_run import settings_of_results
from pretrain_mlip.pipeline.run import check_started, logged, resolved, run_members, share, write_seeds
from pretrain_mlip.pipeline.seeds import seed_configs
from pretrain_mlip.pipeline.strategies import needs_perturbation
from pretrain_mlip.report.results import FILE_NAME, Results
from pretrain_mlip.report.study import Row, StudyResults, rows_of, write_study_report
from pretrain_mlip.settings import Settings, renamed, validate
from pretrain_mlip.training.processes import Place, check_devices

log = logging.getLogger(__name__)
KEY = "study"
OF_THE_WHOLE = {"output", "workers", "scheduler"}  # a system or a model cannot have its own
RESERVED = {"config.yaml", "figures", "log.txt", "report.html", "results.json"}  # files of the study itself
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


class StudySettings(Settings):
    """What a study varies; each entry holds settings of a run that differ from those beside ``study``."""

    systems: dict[str, dict[str, Any]] = Field(min_length=1, description="name -> settings, such as data")
    models: dict[str, dict[str, Any]] = Field(min_length=1, description="name -> settings, such as model")


class Study(NamedTuple):
    """A run for every system and model, and what it was made from."""

    output: Path
    workers: int
    scheduler: str | None
    runs: dict[tuple[str, str], RunConfig]
    content: dict[str, Any]


def read_study(content: Mapping[str, Any], source: str) -> Study:
    """Runs of a configuration with the key ``study``, in OUTPUT/<system>/<model>.

    Raises:
        InputError: a key or a value is wrong; names the system and the model.
    """
    content = renamed(content, RunConfig.aliases, source)
    common = {key: value for key, value in content.items() if key != KEY}
    output = common.get("output", "runs/study")
    if not isinstance(output, str):
        raise InputError(f"{source}: 'output': a folder is expected (got {output!r})")
    settings = validate(StudySettings, content[KEY] or {}, f"{source}: {KEY}")
    for name in (*settings.systems, *settings.models):
        if not NAME.fullmatch(name) or name in RESERVED:
            raise InputError(
                f"{source}: {KEY}: '{name}' is to be the name of a folder: letters, digits, and . _ + - after the "
                f"first, and none of {', '.join(sorted(RESERVED))}"
            )
    runs = {}
    for system, of_system in settings.systems.items():
        for model, of_model in settings.models.items():
            name = f"{source}: {system}, {model}"
            for part, own in ((system, of_system), (model, of_model)):
                if strange := sorted(OF_THE_WHOLE & set(own)):
                    raise InputError(f"{source}: {KEY}: {part}: {', '.join(strange)} belongs to the whole study")
            layers = (renamed(layer, RunConfig.aliases, name) for layer in (of_system, of_model))
            config = validate(RunConfig, reduce(_merged, layers, common), name)
            runs[system, model] = resolved(config.model_copy(update={"output": str(Path(output) / system / model)}))
    first = next(iter(runs.values()))
    for (system, model), config in runs.items():
        _refuse_other_preparation(runs[system, next(iter(settings.models))], config, f"{source}: {system}, {model}")
    return Study(Path(output), first.workers, first.scheduler, runs, dict(content))


def run_study(study: Study) -> Path:
    """Make all runs of a study, or what is missing of them, with its table and its report after each.

    Data, EAM and perturbed structures are made once for every system and seed. A system and model whose rows are in
    results.json, made with the same settings, and whose folder is no longer there, is not computed again.

    Returns:
        The folder.
    """
    if Place.of() is not None:
        raise InputError("a study cannot be started by torchrun; its runs go to 'workers', or to a 'scheduler'")
    for config in study.runs.values():
        device_named(config.device)
        check_devices(config.device, config.devices)
    folder = RunFolder(make_folder(study.output))
    folder.refuse_another_kind("study")
    with logged(folder):
        _make_runs(study, folder)
    return study.output


def _make_runs(study: Study, folder: RunFolder) -> None:
    """The runs that are missing, and the results of all."""
    known = _known_rows(study)
    members = {place: seed_configs(config) for place, config in study.runs.items() if place not in known}
    check_started([config for configs in members.values() for config in configs])
    waiting = {place: {config.output for config in configs} for place, configs in members.items()}

    def made(config: RunConfig) -> None:
        """The rows of a system and model, as soon as all seeds are there."""
        place = next(place for place, outputs in waiting.items() if config.output in outputs)
        waiting[place].remove(config.output)
        if not waiting[place]:
            write_seeds(study.runs[place], members[place])
            known[place] = rows_of(*place, Results.read(study.runs[place].output))
            _write(study, known)

    with Workers(study.workers, study.scheduler, study.output) as workers:
        write_text(folder.config, yaml.safe_dump(study.content, sort_keys=False, allow_unicode=True))
        groups = [
            [configs[number] for (system, _), configs in members.items() if system == name]
            for name in dict.fromkeys(system for system, _ in members)
            for number in range(next(len(configs) for (system, _), configs in members.items() if system == name))
        ]
        run_members([_leader(group) for group in groups], "preparation", workers)
        for group in groups:
            share([_leader(group), *group], "data", "eam", "pretraining")
        run_members([config for configs in members.values() for config in configs], "report", workers, made)
    _write(study, known)


def _leader(configs: Sequence[RunConfig]) -> RunConfig:
    """Which of the runs of a system prepares for all: one that has begun, or that needs all there is to prepare."""
    begun = [config for config in configs if RunFolder(config.output).started]
    return next((config for config in (begun or configs) if needs_perturbation(config)), (begun or configs)[0])


def _known_rows(study: Study) -> dict[tuple[str, str], list[Row]]:
    """Rows of systems and models that need not be computed, though their folders are no longer there.

    Raises:
        InputError: there are rows that would be lost.
    """
    if not (study.output / FILE_NAME).exists():
        return {}
    found = StudyResults.read(study.output)
    known: dict[tuple[str, str], list[Row]] = {}
    for row in found.rows:
        place = row.system, row.model
        if (study.output / row.system / row.model).exists():
            continue
        if place not in study.runs or found.made_with.get("/".join(place)) != _digest(study.runs[place]):
            raise InputError(
                f"{study.output / FILE_NAME}: holds rows of {', '.join(place)}, whose runs are no longer there, made "
                "with settings that the study does not have, and would lose them; choose another output, or remove the "
                "file"
            )
        if place not in known:
            log.info("%s: rows of an earlier run, whose folder is no longer there", ", ".join(place))
        known.setdefault(place, []).append(row)
    return known


def _digest(config: RunConfig) -> str:
    """Of the settings that rows depend on."""
    return hashlib.sha256(
        json.dumps(settings_of_results(config, {"verification", "phonons"}), sort_keys=True).encode()
    ).hexdigest()


def _write(study: Study, known: Mapping[tuple[str, str], Sequence[Row]]) -> None:
    """Results and report of what is there, in the order of the study."""
    places = [place for place in study.runs if place in known]
    StudyResults(
        title=f"pretrain-mlip: {study.output.name}",
        rows=[row for place in places for row in known[place]],
        made_with={"/".join(place): _digest(study.runs[place]) for place in places},
        config=study.content,
    ).write(study.output)
    write_study_report(study.output)


def _merged(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings with changes on top."""
    merged = dict(content)
    for key, value in changes.items():
        before = merged.get(key)
        merged[key] = _merged(before, value) if isinstance(before, Mapping) and isinstance(value, Mapping) else value
    return merged


def _refuse_other_preparation(first: RunConfig, config: RunConfig, name: str) -> None:
    """What models of a system share is to be the same for all of them."""
    for group in ("data", "eam", "perturbation", "seed", "seeds"):
        if getattr(first, group) != getattr(config, group):
            raise InputError(f"{name}: '{group}' belongs to a system, not to a model: all models share its structures")
