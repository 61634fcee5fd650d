"""Runs from their configuration to their report, of one seed or several, alone or together with other processes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from pretrain_mlip import console
from pretrain_mlip.config import ModelSettings, RunConfig
from pretrain_mlip.files import locked, make_folder, write_text
from pretrain_mlip.graphs.graph import device_named
from pretrain_mlip.parallel import Workers
from pretrain_mlip.pipeline.folder import RunFolder
from pretrain_mlip.pipeline.foundation import foundation_model
from pretrain_mlip.pipeline.one_run import EXAMINATIONS, TRIALS, Run, Until, check_same, is_examined
from pretrain_mlip.pipeline.seeds import combined, seed_configs, take_best
from pretrain_mlip.potentials.networks import build_model, model_class, model_settings
from pretrain_mlip.report.html import write_report
from pretrain_mlip.report.results import FILE_NAME, Results
from pretrain_mlip.settings import to_yaml
from pretrain_mlip.training.board import check_tensorboard
from pretrain_mlip.training.processes import TorchrunGroup, check_devices, torchrun_group
from pretrain_mlip.training.stages import freeze_parts

log = logging.getLogger(__name__)


def run_pipeline(config: RunConfig, until: Until = "report") -> Path:
    """Make a run, or go on with it where the folder holds one with the same configuration.

    With several seeds it is a folder of runs, whose results are put together.

    Where torchrun has started several processes all of them are to call this: they train together, and the first does
    everything else.

    Returns:
        The folder.

    Raises:
        InputError: the configuration or the data cannot be used, or the folder holds another run.
        ComputationError: a step failed.
    """
    config = resolved(config)
    device_named(config.device)  # refused now, not after an hour
    check_devices(config.device, config.devices)
    group = torchrun_group()
    if group is None:
        return _run_pipeline(config, until)
    if group.place.rank > 0:
        group.follow()
        return Path(config.output)
    with group.leading():
        return _run_pipeline(config, until, group)


def run_members(
    configs: Sequence[RunConfig], until: Until, workers: Workers, made: Callable[[RunConfig], None] = lambda _: None
) -> None:
    """Make runs, several at a time in worker processes, each in one process; a single one as its configuration says.

    Args:
        configs: of the runs.
        until: the last step.
        workers: that make them.
        made: called with each of ``configs`` as soon as its run is there.
    """
    missing = {}
    for config in configs:
        if _is_made(config, until):
            made(config)
        else:
            missing[config.output] = config
    if not workers.several or len(missing) < 2 or any(config.devices > 1 for config in missing.values()):
        for config in missing.values():
            _make_member(_Member(config, until))
            made(config)
        return
    alone = {"workers": 1, "threads": 1, "scheduler": None}
    tasks = [_Member(config.model_copy(update=alone), until) for config in missing.values()]
    with closing(workers.run(_make_member, tasks, stoppable=True)) as outcomes:
        for task, outcome in console.track(outcomes, f"runs ({until})", total=len(missing)):
            if isinstance(outcome, Exception):
                raise outcome
            made(missing[task.config.output])


def write_seeds(config: RunConfig, members: Sequence[RunConfig]) -> None:
    """Results and report of runs of several seeds together, and the best of their potentials."""
    folders = [RunFolder(member.output) for member in members]
    runs = [Results.read(folder.path) for folder in folders]
    folder = RunFolder(make_folder(config.output))
    write_text(folder.config, to_yaml(config))
    take_best(folder, folders, config)
    combined(runs, config).write(folder.path)
    write_report(folder.path)


class _Member(NamedTuple):
    config: RunConfig
    until: Until


def _make_member(member: _Member) -> None:
    """Make one run of several; the entry point of a worker process, which logs into the folder of the run alone."""
    _run_pipeline(member.config, member.until)


def _is_made(config: RunConfig, until: Until) -> bool:
    """Whether a run that finished has nothing to add, so that no process is started for it."""
    folder = RunFolder(config.output)
    if until != "report" or not all((folder.path / name).exists() for name in ("report.html", FILE_NAME)):
        return False
    found = Results.read(folder.path)
    wanted = ["errors", "provenance", *(TRIALS[name] for name in TRIALS if getattr(config, name) is not None)]
    examined = [is_examined(found, config, name) for name in EXAMINATIONS if getattr(config, name) is not None]
    return all(getattr(found, section) is not None for section in wanted) and all(examined)


def check_started(configs: Sequence[RunConfig]) -> None:
    """Refuse configurations that differ from those of runs that are there; before anything is written.

    Raises:
        InputError: names what differs.
    """
    for config in configs:
        folder = RunFolder(config.output)
        if folder.config.exists() and folder.started:
            check_same(folder, config)


def share(configs: Sequence[RunConfig], *parts: str) -> None:
    """Give runs what the first of them that has begun has already, so that all see the same structures."""
    folders = [RunFolder(config.output) for config in configs]
    for source in [folder for folder in folders if folder.started][:1]:
        for folder in folders:
            folder.take(source, *parts)


def _run_seeds(folder: RunFolder, config: RunConfig, until: Until, group: TorchrunGroup | None = None) -> Path:
    folder.refuse_another_kind("seeds")
    members = seed_configs(config)
    check_started(members)
    with logged(folder):
        check_started(members)  # again: another process may have been here until now
        write_text(folder.config, to_yaml(config))
        share(members, "data")
        if group is None and config.devices == 1:
            with Workers(config.workers, config.scheduler, folder.path) as workers:
                run_members(members, until, workers)
        else:
            for member in members:
                _run_pipeline(member, until, group)
        if until == "report":
            write_seeds(config, members)
    return folder.path


def _run_pipeline(config: RunConfig, until: Until, group: TorchrunGroup | None = None) -> Path:
    folder = RunFolder(make_folder(config.output))
    if config.seeds > 1 or folder.has_seeds:
        return _run_seeds(folder, config, until, group)
    folder.refuse_another_kind("run")
    check_started([config])
    with logged(folder), Workers(config.workers, config.scheduler, folder.path) as workers:
        check_started([config])  # again: another process may have been here until now
        folder.write_config(config)  # what has not been used yet may be corrected
        Run(folder, config, workers, group).make(until)
    return folder.path


@contextmanager
def logged(folder: RunFolder) -> Iterator[None]:
    """Log into a folder as well, which is this process's alone, and say how to go on after an interruption."""
    handler = console.log_to_file(folder.log)
    try:
        with locked(folder.path):
            yield
    except KeyboardInterrupt:
        log.warning("interrupted; 'pretrain-mlip resume %s' goes on from here", folder.path)
        raise
    finally:
        console.stop_logging(handler)


def resume_pipeline(path: Path) -> Path:
    """Go on with a run in its folder, wherever that now is.

    Raises:
        InputError: there is no run in the folder.
    """
    config = RunFolder(path).read_config()
    return run_pipeline(config.model_copy(update={"output": str(path)}))


def resolved(config: RunConfig) -> RunConfig:
    """The configuration with every default of the network filled in, learning rates included.

    Raises:
        InputError: the network, one of its hyperparameters or a part of it that is to be frozen is unknown, or the
            weights to start from are of another network, or TensorBoard is asked for and not installed.
    """
    model = foundation_model(config) if config.finetuning.start is not None else config.model
    hyperparameters = model_settings(model.name, model.hyperparameters).model_dump(mode="json")
    if config.finetuning.freeze:
        freeze_parts(build_model(model.name, ["H"], **hyperparameters), config.finetuning.freeze)
    if config.training.tensorboard or config.pretraining.tensorboard:
        check_tensorboard()
    network = model_class(model.name)
    rates = {
        "training": network.learning_rate,
        "pretraining": network.learning_rate,
        "finetuning": network.finetuning_rate,
    }
    groups = {
        name: group.model_copy(update={"learning_rate": group.learning_rate or rate})
        for name, rate in rates.items()
        for group in [getattr(config, name)]
    }
    return config.model_copy(update=groups | {"model": ModelSettings(name=model.name, hyperparameters=hyperparameters)})
