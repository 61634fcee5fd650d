"""Training the strategies of a run: those that do not build on each other at the same time, in worker processes."""

from __future__ import annotations

import logging
import multiprocessing
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, cast

from lightning_fabric import Fabric
from torch_geometric.data import Data

from pretrain_mlip import console
from pretrain_mlip.config import RunConfig
from pretrain_mlip.files import read_json
from pretrain_mlip.graphs.sequences import From
from pretrain_mlip.graphs.store import GraphStore
from pretrain_mlip.parallel import Workers
from pretrain_mlip.pipeline.folder import FOUNDATION, RunFolder
from pretrain_mlip.pipeline.foundation import network_of, references_of
from pretrain_mlip.potentials.base import Potential, ReferenceEnergies, SumPotential
from pretrain_mlip.potentials.checkpoint import load_potential, save_potential
from pretrain_mlip.potentials.eam.storage import load_eam
from pretrain_mlip.potentials.ensemble import Ensemble
from pretrain_mlip.potentials.networks.base import Network
from pretrain_mlip.structures.io import read_structures
from pretrain_mlip.training.processes import TorchrunGroup, check_visible, joined, one_process, run_together
from pretrain_mlip.training.settings import StrategyName, TrainingSettings
from pretrain_mlip.training.stages import STRATEGIES, Strategy, residual_graphs, train_stage, with_prerequisites
from pretrain_mlip.training.state import is_finished, last_note
from pretrain_mlip.training.stores import build_store

log = logging.getLogger(__name__)


MEMBER_SEEDS = 10_000  # between seeds of members, so that runs of several seeds share none


class _Stage(NamedTuple):
    """One training: of a strategy, or of a member of its ensemble."""

    strategy: StrategyName
    member: int


class _Task(NamedTuple):
    run: Path
    config: RunConfig
    stage: _Stage


def train_strategies(
    folder: RunFolder, config: RunConfig, workers: Workers, group: TorchrunGroup | None = None
) -> list[StrategyName]:
    """Train the strategies of a run and those that they start from, or continue where their folders say they were.

    Args:
        folder: of the run.
        config: of the run.
        workers: that train strategies at the same time.
        group: processes that torchrun has started, of which this is the first.

    Returns:
        All trained strategies, in the order in which the report shows them.
    """
    names = trained_strategies(config)
    waves = [
        [_Stage(name, member) for name in wave for member in range(config.ensemble)] for wave in _waves(config, names)
    ]
    missing = [stage for wave in waves for stage in wave if not is_finished(_folder(folder, config, stage))]
    if missing:
        _build_stores(folder, config, [stage.strategy for stage in missing])
        waves = [[stage for stage in wave if stage in missing] for wave in waves]
        _train_all(folder, config, waves, workers, group)
    if config.ensemble > 1:
        trained = {stage.strategy for stage in missing}
        for name in names:
            if name in trained or not folder.potential(name).exists():
                _assemble(folder, config, name)
    return names


def _train_all(
    folder: RunFolder, config: RunConfig, waves: list[list[_Stage]], workers: Workers, group: TorchrunGroup | None
) -> None:
    stages = [stage for wave in waves for stage in wave]
    if group is not None:
        group.call(_train_together, folder.path.absolute(), config, stages)
        return
    # In this process every training draws its own bar
    with _watched(folder, config, stages) if workers.several or config.devices > 1 else nullcontext():
        if config.devices > 1:
            run_together(_train_together, (folder.path, config, stages), config.devices, config.threads)
            return
        for wave in filter(None, waves):
            tasks = [_Task(folder.path.absolute(), config, stage) for stage in wave]
            if not workers.several:
                for stage in wave:
                    train_strategy(folder, config, *stage)
                continue
            with closing(workers.run(_train, tasks, stoppable=True)) as outcomes:  # one failure ends the others
                for _, outcome in outcomes:
                    if isinstance(outcome, Exception):
                        raise outcome


def _folder(folder: RunFolder, config: RunConfig, stage: _Stage) -> Path:
    return folder.training(stage.strategy, stage.member, config.ensemble)


def _assemble(folder: RunFolder, config: RunConfig, name: StrategyName) -> None:
    """Put the members of an ensemble together where the potential of a strategy is; what is added to each is shared."""
    paths = [folder.training(name, member, config.ensemble) / "best.pt" for member in range(config.ensemble)]
    members = [cast("SumPotential", load_potential(path)).potentials() for path in paths]  # as train_stage deploys them
    baseline, _ = members[0]
    save_potential(folder.potential(name), SumPotential([baseline, Ensemble([network for _, network in members])]))


def strategies_of(config: RunConfig) -> Mapping[StrategyName, Strategy]:
    """The strategies as a run has them: what ``delta`` starts from, and whether it replays, is up to its settings."""
    start = STRATEGIES["delta"].start if config.delta.pretrained else None
    return {**STRATEGIES, "delta": replace(STRATEGIES["delta"], start=start, replay=config.delta.replay)}


def trained_strategies(config: RunConfig) -> list[StrategyName]:
    """Those asked for and those that they start from, in an order in which they can be trained."""
    return with_prerequisites(config.strategies, strategies_of(config), foundation=config.finetuning.start is not None)


def needs_perturbation(config: RunConfig) -> bool:
    """Whether anything is trained on labels of the EAM."""
    strategies = strategies_of(config)
    return any(strategies[name].labels == "eam" or strategies[name].replay for name in trained_strategies(config))


def stage_settings(config: RunConfig, name: StrategyName) -> TrainingSettings:
    """The settings of the loop for a strategy. All DFT strategies make the same number of gradient steps."""
    strategy = strategies_of(config)[name]
    if strategy.labels == "eam":
        return config.pretraining
    changes: dict[str, float | None] = {}
    if strategy.start is not None:
        changes["learning_rate"] = config.finetuning.learning_rate
    if strategy.sharpness_aware:
        changes["sam_rho"] = config.sam.rho
    return config.training.model_copy(update=changes)


def train_strategy(
    folder: RunFolder, config: RunConfig, name: StrategyName, member: int = 0, fabric: Fabric | None = None
) -> None:
    """Train one strategy from the files of a run; its models/<strategy>/ receives the result.

    Args:
        folder: of the run.
        config: of the run.
        name: of the strategy.
        member: of its ensemble, where there is one.
        fabric: where, together with other processes; None: in this process alone.
    """
    strategy = strategies_of(config)[name]
    start = _start(folder, config, name, member)
    baseline = _baseline(folder, config, name)
    cutoff = _network_cutoff(config)

    def graphs(split: str, labels: str = strategy.labels) -> Sequence[Data]:
        path = _structures(folder, split, labels)
        if _is_large(path, config):
            return GraphStore.open(folder.graphs(labels, split, _baseline_name(config, name)))
        return residual_graphs(read_structures(path), cutoff, baseline, f"{name}: {split} graphs")

    train, validation = graphs("train"), graphs("val")
    # Of the pretraining set the first are the structures of the training set themselves, which have better labels here
    replayed = From(graphs("train", "eam"), len(train)) if strategy.replay else ()
    # A pretrained network must fit DFT later: its scale is that of the DFT forces
    scale_from = graphs("train", "dft") if strategy.labels == "eam" else None
    train_stage(
        name,
        config.model.name,
        config.model.hyperparameters,
        train,
        validation,
        baseline,
        stage_settings(config, name),
        folder.training(name, member, config.ensemble),
        seed=config.seed + member * MEMBER_SEEDS,
        start=start,
        fresh_output=strategy.baseline == "eam",
        scale_from=scale_from,
        replayed=replayed,
        replay=config.replay if strategy.replay else None,
        freeze=config.finetuning.freeze if strategy.start is not None else (),
        fabric=fabric or one_process(config.device),
    )


def _build_stores(folder: RunFolder, config: RunConfig, names: Sequence[StrategyName]) -> None:
    """Make the stores of graphs that strategies share, for sets that are large: trainings only read them."""
    wanted: dict[Path, tuple[Path, StrategyName]] = {}
    for name in names:
        strategy = strategies_of(config)[name]
        sets = [("train", strategy.labels), ("val", strategy.labels)]
        sets += [("train", "dft")] if strategy.labels == "eam" else []
        sets += [("train", "eam")] if strategy.replay else []
        for split, labels in sets:
            path = _structures(folder, split, labels)
            if _is_large(path, config):
                wanted[folder.graphs(labels, split, _baseline_name(config, name))] = path, name
    for store, (path, name) in wanted.items():
        build_store(store, path, _network_cutoff(config), _baseline(folder, config, name), workers=config.workers)


def _structures(folder: RunFolder, split: str, labels: str) -> Path:
    return folder.pretraining(split) if labels == "eam" else folder.data(split)


def _is_large(path: Path, config: RunConfig) -> bool:
    return path.exists() and path.stat().st_size > 1e6 * config.store_above


def _train(task: _Task) -> None:
    """Train one strategy; the entry point of a worker process."""
    folder = RunFolder(task.run)
    with _logged(folder):
        train_strategy(folder, task.config, *task.stage)


def _train_together(run: Path, config: RunConfig, stages: Sequence[_Stage]) -> None:
    """Train strategies one after another; what each of several processes does."""
    folder = RunFolder(run)
    fabric = joined(config.device, config.threads)
    check_visible(fabric, folder.config)
    with _logged(folder):
        for stage in stages:
            train_strategy(folder, config, *stage, fabric=fabric)


@contextmanager
def _logged(folder: RunFolder) -> Iterator[None]:
    """Where this process was started for a training, it writes to the log of the run as well."""
    if multiprocessing.parent_process() is None:
        yield
        return
    console.set_up_logging()
    handler = console.log_to_file(folder.log) if console.is_first_process() else None
    try:
        yield
    finally:
        if handler is not None:
            console.stop_logging(handler)


def _waves(config: RunConfig, names: Sequence[StrategyName]) -> list[list[StrategyName]]:
    """Strategies that can be trained at the same time: those of a wave start from strategies of earlier ones."""
    strategies = strategies_of(config)
    waves: dict[int, list[StrategyName]] = {}
    for name in names:
        depth, start = 0, strategies[name].start
        while start is not None:
            depth, start = depth + 1, strategies[start].start
        waves.setdefault(depth, []).append(name)
    return [waves[depth] for depth in sorted(waves)]


def _start(folder: RunFolder, config: RunConfig, name: StrategyName, member: int) -> Network | None:
    """The network that a strategy starts from."""
    before = strategies_of(config)[name].start
    if before is None:
        return None
    path = folder.training(before, member, config.ensemble) / "best.pt"
    if config.finetuning.start is not None:
        path = folder.foundation
    return network_of(load_potential(path), str(path))


def _baseline_name(config: RunConfig, name: StrategyName) -> str:
    """What is subtracted from labels: the EAM, or the reference energies of the weights that are trained."""
    strategy = strategies_of(config)[name]
    elsewhere = strategy.start is not None and config.finetuning.start is not None
    return FOUNDATION if strategy.baseline == "e0" and elsewhere else strategy.baseline


def _baseline(folder: RunFolder, config: RunConfig, name: StrategyName) -> Potential:
    kind = _baseline_name(config, name)
    if kind == "eam":
        return load_eam(folder.eam)
    if kind == FOUNDATION:
        return references_of(load_potential(folder.foundation))
    energies = read_json(folder.reference_energies)
    return ReferenceEnergies({symbol: energies[symbol] for symbol in load_eam(folder.eam).elements})


def _network_cutoff(config: RunConfig) -> float:
    from pretrain_mlip.potentials.networks import model_settings

    return model_settings(config.model.name, config.model.hyperparameters).cutoff


@contextmanager
def _watched(folder: RunFolder, config: RunConfig, stages: Sequence[_Stage]) -> Iterator[None]:
    """A progress bar with the newest errors per training, read off the logs that the worker processes write."""
    done = threading.Event()
    with console.progress_bar() as bar:
        tasks = {}
        for stage in stages:
            name = stage.strategy if config.ensemble == 1 else f"{stage.strategy} {stage.member}"
            tasks[stage] = bar.add_task(name, total=stage_settings(config, stage.strategy).epochs, note="")

        def look() -> None:
            for stage, task in tasks.items():
                epochs, note = last_note(_folder(folder, config, stage) / "log.csv")
                bar.update(task, completed=epochs, note=note)

        def watch() -> None:
            while not done.wait(1.0):
                look()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            look()
