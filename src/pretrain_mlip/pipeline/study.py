"""A study: the same comparison on several systems and with several architectures, from one file."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import Field

from pretrain_mlip.config import RunConfig
from pretrain_mlip.errors import InputError
from pretrain_mlip.files import make_folder, write_text
from pretrain_mlip.parallel import Workers
from pretrain_mlip.pipeline.folder import RunFolder
from pretrain_mlip.pipeline.run import logged, resolved, run_members, write_seeds
from pretrain_mlip.pipeline.seeds import seed_configs
from pretrain_mlip.report.results import Results
from pretrain_mlip.report.study import StudyResults, rows_of, write_study_report
from pretrain_mlip.settings import Settings, validate

KEY = "study"
OF_THE_WHOLE = {"output", "workers", "scheduler"}  # a system or a model cannot have its own


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
    common = {key: value for key, value in content.items() if key != KEY}
    settings = validate(StudySettings, content[KEY] or {}, f"{source}: {KEY}")
    runs = {}
    for system, of_system in settings.systems.items():
        for model, of_model in settings.models.items():
            name = f"{source}: {system}, {model}"
            for part, own in ((system, of_system), (model, of_model)):
                if strange := sorted(OF_THE_WHOLE & set(own)):
                    raise InputError(f"{source}: {KEY}: {part}: {', '.join(strange)} belongs to the whole study")
            config = validate(RunConfig, _merged(_merged(common, of_system), of_model), name)
            runs[system, model] = resolved(
                config.model_copy(update={"output": str(Path(config.output) / system / model)})
            )
    first = next(iter(runs.values()))
    output = Path(first.output).parents[1]
    for (system, model), config in runs.items():
        _refuse_other_preparation(runs[system, next(iter(settings.models))], config, f"{source}: {system}, {model}")
    return Study(output, first.workers, first.scheduler, runs, dict(content))


def run_study(study: Study) -> Path:
    """Make all runs of a study, or what is missing of them, then its table and its report.

    Data, EAM and perturbed structures are made once for every system and seed.

    Returns:
        The folder.
    """
    make_folder(study.output)
    write_text(study.output / "config.yaml", yaml.safe_dump(study.content, sort_keys=False, allow_unicode=True))
    with logged(RunFolder(study.output)):
        members = {place: seed_configs(config) for place, config in study.runs.items()}
        leaders = {system: members[system, model] for system, model in reversed(members)}  # the first model of each
        with Workers(study.workers, study.scheduler, study.output) as workers:
            run_members([config for found in leaders.values() for config in found], "preparation", workers)
            for (system, _), configs in members.items():
                for leader, config in zip(leaders[system], configs, strict=True):
                    _take_preparation(RunFolder(leader.output), RunFolder(config.output))
            run_members([config for found in members.values() for config in found], "report", workers)
        for place, config in study.runs.items():
            write_seeds(config, members[place])
        _write(study)
    return study.output


def _write(study: Study) -> None:
    rows = [
        row
        for (system, model), config in study.runs.items()
        for row in rows_of(system, model, Results.read(config.output))
    ]
    results = StudyResults(title=f"pretrain-mlip: {study.output.name}", rows=rows, config=study.content)
    results.write(study.output)
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


def _take_preparation(source: RunFolder, target: RunFolder) -> None:
    """Copy data, EAM and perturbed structures that the target has not got yet."""
    if source.path == target.path:
        return
    for part in ("data", "eam", "pretraining"):
        place = target.path / part
        if place.exists():
            continue
        half = make_folder(target.path) / f".{part}.part"
        shutil.rmtree(half, ignore_errors=True)
        shutil.copytree(source.path / part, half, ignore=shutil.ignore_patterns("graphs*"))
        half.rename(place)
