"""What the settings of a run make of each strategy."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.pipeline.tiny import config

from pretrain_mlip import keys
from pretrain_mlip.parallel import Workers
from pretrain_mlip.pipeline import preparation, strategies
from pretrain_mlip.pipeline.folder import RunFolder
from pretrain_mlip.pipeline.run import resolved, run_pipeline
from pretrain_mlip.pipeline.strategies import needs_perturbation, train_strategies, trained_strategies
from pretrain_mlip.structures.datasets import load_dataset
from pretrain_mlip.structures.io import read_structures
from pretrain_mlip.structures.labels import labels_of


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a pretrained network, from which others start."""
    run = config(tmp_path_factory.mktemp("runs") / "prepared", strategies=["pretrain"])
    return run_pipeline(run, until="training")


@pytest.fixture
def trained(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What ``train_stage`` is called with for a strategy, in place of a training."""

    def train(name: str, **changes: Any) -> SimpleNamespace:
        calls: list[SimpleNamespace] = []

        def note(strategy: str, model: str, hyperparameters: Any, *rest: Any, **options: Any) -> None:
            del model, hyperparameters
            names = ("train", "validation", "baseline", "settings", "folder")
            calls.append(SimpleNamespace(strategy=strategy, **dict(zip(names, rest, strict=True)), **options))

        monkeypatch.setattr(strategies, "train_stage", note)
        run = resolved(config(prepared, strategies=[name], **changes))
        strategies.train_strategy(RunFolder(prepared), run, name)  # type: ignore[arg-type]
        return calls[0]

    return train


def test_plain_training(trained: Any) -> None:
    call = trained("vanilla")
    assert (call.start, call.replay, len(call.replayed), call.fresh_output, call.freeze) == (None, None, 0, False, ())
    assert (call.settings.epochs, call.settings.learning_rate, call.settings.sam_rho) == (4, 0.01, None)


def test_sharpness_aware_training_differs_in_its_radius_alone(trained: Any) -> None:
    plain, sam = trained("vanilla"), trained("sam", sam={"rho": 0.02})
    assert sam.settings.sam_rho == 0.02
    assert sam.settings.model_copy(update={"sam_rho": None}) == plain.settings
    assert sam.start is None


def test_finetuning(trained: Any) -> None:
    call = trained("finetune", finetuning={"learning_rate": 0.003, "freeze": ["embedding"]})
    assert (call.settings.learning_rate, call.freeze, call.replay) == (0.003, ["embedding"], None)
    assert call.start is not None
    assert not call.fresh_output


@pytest.mark.parametrize("stored", [False, True])
def test_replay_draws_from_what_was_perturbed_and_not_from_what_has_dft_labels(trained: Any, stored: bool) -> None:
    if stored:
        trained = _stored(trained)
    call = trained("replay", replay={"share": 0.5, "weight": 0.3})
    assert (call.replay.share, call.replay.weight) == (0.5, 0.3)
    assert len(call.replayed) == 8  # a copy of each of eight structures
    known = [graph[keys.POSITIONS] for graph in call.train]
    for graph in call.replayed:
        assert not any(np.allclose(graph[keys.POSITIONS], other, atol=1e-3) for other in known)
    assert call.replayed.edges.tolist() == [graph[keys.EDGE_INDEX].shape[1] for graph in call.replayed]
    assert len(call.replayed.digests) == 8


def _stored(trained: Any) -> Any:
    """The same where graphs are on disk."""

    def train(name: str, **changes: Any) -> Any:
        with pytest.MonkeyPatch.context() as patched:  # the stores that a training finds there
            patched.setattr(strategies, "is_finished", lambda _: False)
            patched.setattr(strategies, "_train_all", lambda *_: None)
            folder = RunFolder(_folder_of(trained))
            run = resolved(config(folder.path, strategies=[name], store_above=0.0, **changes))
            train_strategies(folder, run, Workers())
        return trained(name, store_above=0.0, **changes)

    return train


def _folder_of(trained: Any) -> Path:
    return trained("vanilla").folder.parents[1]


def test_delta(trained: Any) -> None:
    plain = trained("delta")
    assert plain.baseline.kind == "eam"
    assert plain.start is not None
    assert plain.fresh_output
    assert plain.replay is None
    assert plain.settings.learning_rate == 0.005  # of finetuning
    held = trained("delta", delta={"replay": True}, replay={"weight": 0.2})
    assert held.replay.weight == 0.2
    assert all(float(graph[keys.FORCES].abs().max()) < 1e-4 for graph in held.replayed)  # labels minus the EAM
    assert len(held.replayed) == 8


def test_delta_from_random_weights(trained: Any, tmp_path: Path) -> None:
    fresh = trained("delta", delta={"pretrained": False})
    assert fresh.start is None
    assert fresh.fresh_output
    assert fresh.settings.learning_rate == 0.01  # of the training
    alone = config(tmp_path, strategies=["delta"], delta={"pretrained": False})
    assert trained_strategies(alone) == ["delta"]
    assert not needs_perturbation(alone)
    assert needs_perturbation(alone.model_copy(update={"delta": alone.delta.model_copy(update={"replay": True})}))
    assert trained_strategies(config(tmp_path, strategies=["delta"])) == ["pretrain", "delta"]


def test_workers_label_many_structures(prepared: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In other processes, to the same digits."""
    monkeypatch.setattr(preparation, "MANY", 1)
    before = RunFolder(prepared)
    folder = RunFolder(tmp_path)
    folder.take(before, "data", "eam")
    run = config(tmp_path)
    splits = preparation.prepare_data(folder, run.data)
    with Workers(2) as workers:
        eam = preparation.prepare_eam(folder, splits, run)
        preparation.prepare_pretraining(folder, splits, eam, run, workers)
        assert workers._client is not None
    for one, other in zip(*(read_structures(each.pretraining("train")) for each in (before, folder)), strict=True):
        assert np.array_equal(one.positions, other.positions)
        assert np.allclose(labels_of(one).forces, labels_of(other).forces, rtol=1e-12, atol=1e-9)  # type: ignore[arg-type]


def test_the_pretraining_set_begins_with_the_training_set(prepared: Path) -> None:
    folder = RunFolder(prepared)
    training, pretraining = (read_structures(path) for path in (folder.data("train"), folder.pretraining("train")))
    assert len(load_dataset("silica_mini")) > len(training) == 8
    for one, other in zip(training, pretraining[:8], strict=True):
        assert np.array_equal(one.positions, other.positions)
