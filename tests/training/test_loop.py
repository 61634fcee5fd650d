"""The training loop: it learns, is deterministic, survives being killed, refuses what it cannot continue."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.training.small import E0, SETTINGS, SMALL, graphs, killed_after, train
from torch_geometric.data import Data

from pretrain_mlip import keys
from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.potentials.checkpoint import load_potential, read_checkpoint
from pretrain_mlip.potentials.networks import build_model
from pretrain_mlip.structures.datasets import load_dataset
from pretrain_mlip.training.loop import Training
from pretrain_mlip.training.settings import ReplaySettings
from pretrain_mlip.training.stages import train_stage
from pretrain_mlip.training.state import is_finished


def test_learns_and_leaves_its_files(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"epochs": 40})
    result = train(tmp_path, settings)
    losses = [row["loss"] for row in result.history]
    assert losses[-1] < 0.7 * losses[0]
    assert result.steps == 40 * 3  # 8 structures in batches of 3
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    assert [int(row["epoch"]) for row in rows] == list(range(1, 41))
    errors = [row["val_forces_mae"] for row in result.history]
    assert result.best_epoch == int(np.argmin(errors)) + 1
    assert float(rows[-1]["learning_rate"]) < 0.02 * settings.learning_rate  # the cosine has come down
    best = load_potential(tmp_path / "best.pt")
    for name, value in best.state_dict().items():
        assert (value == result.network.state_dict()[name]).all()


def test_the_best_weights_have_the_reported_error(tmp_path: Path) -> None:
    result = train(tmp_path)
    errors = []
    for graph in graphs(8, 11):
        prediction = result.network(graph)
        errors.append((prediction[keys.FORCES] - graph[keys.FORCES]).abs().mean())  # 24 atoms each
    assert float(np.mean(errors)) == pytest.approx(min(row["val_forces_mae"] for row in result.history), rel=1e-5)


def test_interrupted_after_any_epoch_ends_the_same(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole")
    for stop in (1, 3):
        folder = tmp_path / f"stop{stop}"
        with killed_after(stop):
            train(folder)
        resumed = train(folder)
        for name, value in whole.network.state_dict().items():
            assert (value == resumed.network.state_dict()[name]).all()
        for ours, theirs in zip(resumed.history, whole.history, strict=True):
            assert {**ours, "seconds": 0} == {**theirs, "seconds": 0}


def test_asked_to_stop_within_an_epoch_it_writes_and_ends_the_same(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole")
    step = Training._step
    for number in (signal.SIGTERM, signal.SIGINT):
        folder = tmp_path / number.name

        def interrupted(self: Training, graph: Data, number: signal.Signals = number) -> float | None:
            if self.step == 7:  # second batch of the third epoch
                os.kill(os.getpid(), number)
            return step(self, graph)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Training, "_step", interrupted)
            with pytest.raises(KeyboardInterrupt):
                train(folder)
        state = read_checkpoint(folder / "last.pt")["training"]
        assert (state["epoch"], state["batch"], state["step"]) == (2, 2, 8)
        resumed = train(folder)
        for name, value in whole.network.state_dict().items():
            assert torch.equal(value, resumed.network.state_dict()[name])
        assert [row["loss"] for row in resumed.history] == [row["loss"] for row in whole.history]


def test_a_batch_larger_than_the_data_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    result = train(tmp_path, SETTINGS.model_copy(update={"batch_size": 100}))
    assert result.steps == SETTINGS.epochs
    assert "batch_size 100 is more than the 8 training structures" in caplog.text


def test_replay_needs_structures_and_settings(tmp_path: Path) -> None:
    for replayed, replay in (((), ReplaySettings()), (graphs(11, 13), None)):
        with pytest.raises(InputError, match="replay needs structures with labels of the EAM"):
            train_stage(
                *("replay", "cgcnn", SMALL, graphs(0, 8), graphs(8, 11), E0, SETTINGS, tmp_path),
                replayed=replayed,
                replay=replay,
            )


def test_tensorboard_that_is_not_installed_is_said_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(InputError, match="pip install tensorboard"):
        train(tmp_path, SETTINGS.model_copy(update={"tensorboard": True}))
    assert not (tmp_path / "last.pt").exists()


def test_tensorboard_has_every_epoch_once_also_after_an_interruption(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with killed_after(2):
        train(tmp_path, SETTINGS.model_copy(update={"tensorboard": True}))
    history = train(tmp_path, SETTINGS.model_copy(update={"tensorboard": True})).history
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    for name in ("loss", "val_energy_mae"):
        expected = [(row["step"], row[name]) for row in history]
        assert [(e.step, e.value) for e in board.Scalars(name)] == [
            (step, pytest.approx(value, rel=1e-6)) for step, value in expected
        ]


def test_asked_to_stop_after_the_last_step_what_follows_is_not_begun(tmp_path: Path) -> None:
    end = Training._end_epoch

    def interrupted(self: Training) -> None:
        if self.epoch == SETTINGS.epochs - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        end(self)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Training, "_end_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path)
    assert is_finished(tmp_path)
    assert train(tmp_path).steps == 15


@pytest.mark.parametrize("changes", [{"sam_rho": 0.1}, {"schedule": "plateau", "plateau_patience": 0}])
def test_other_ways_to_train_resume_too(tmp_path: Path, changes: dict[str, Any]) -> None:
    settings = SETTINGS.model_copy(update=changes)
    whole, plain = train(tmp_path / "whole", settings), train(tmp_path / "plain")
    assert any(
        not torch.equal(value, plain.network.state_dict()[name]) for name, value in whole.network.state_dict().items()
    )
    with killed_after(3):
        train(tmp_path / "stopped", settings)
    resumed = train(tmp_path / "stopped", settings)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name])


def test_errors_of_every_kind_of_structure(tmp_path: Path) -> None:
    result = train(tmp_path)
    validation = graphs(8, 11)
    kinds = {graph[keys.CONFIG_TYPE] for graph in validation}
    assert len(kinds) > 1
    row = result.history[result.best_epoch - 1]
    for kind in kinds:
        errors = [
            (result.network(graph)[keys.FORCES] - graph[keys.FORCES]).abs()
            for graph in validation
            if graph[keys.CONFIG_TYPE] == kind
        ]
        assert row[f"val_forces_mae[{kind}]"] == pytest.approx(float(torch.cat(errors).mean()), rel=1e-5)


def test_frozen_parts_keep_their_weights(tmp_path: Path) -> None:
    data = graphs(0, 8), graphs(8, 11)
    first = train_stage("pretrain", "cgcnn", SMALL, *data, E0, SETTINGS, tmp_path / "a").network
    second = train_stage(
        "finetune", "cgcnn", SMALL, *data, E0, SETTINGS, tmp_path / "b", start=first, freeze=["embedding"]
    ).network
    weights = {name: torch.equal(value, second.state_dict()[name]) for name, value in first.named_parameters()}
    assert {name for name, same in weights.items() if same} == {"embedding.weight"}
    with pytest.raises(InputError, match="'readuot' is no part of cgcnn; its parts are embedding"):
        train_stage("finetune", "cgcnn", SMALL, *data, E0, SETTINGS, tmp_path / "c", start=first, freeze=["readuot"])


def test_double_precision_is_kept_from_pretraining_to_finetuning(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"dtype": "float64", "epochs": 1})
    data = graphs(0, 6), graphs(8, 11)
    start = train_stage("pretrain", "cgcnn", SMALL, *data, E0, settings, tmp_path / "a").network
    assert start.energy_scale.dtype == torch.float64
    still = settings.model_copy(update={"learning_rate": 1e-14, "weight_decay": 0.0})
    found = train_stage("finetune", "cgcnn", SMALL, *data, E0, still, tmp_path / "b", start=start).network
    for name, value in start.state_dict().items():
        assert torch.allclose(found.state_dict()[name], value, rtol=0, atol=1e-12)  # float32 would leave 1e-8


def test_replayed_structures_take_part_and_cost_no_step(tmp_path: Path) -> None:
    data = graphs(0, 6), graphs(8, 11)
    start = train_stage("pretrain", "cgcnn", SMALL, *data, E0, SETTINGS, tmp_path / "a").network
    plain = train_stage("finetune", "cgcnn", SMALL, *data, E0, SETTINGS, tmp_path / "b", start=start)
    replay = train_stage(
        *("replay", "cgcnn", SMALL, *data, E0, SETTINGS, tmp_path / "c"),
        start=start,
        replayed=graphs(6, 8),
        replay=ReplaySettings(share=0.25, weight=0.5),
    )
    assert replay.steps == plain.steps
    assert any(
        not torch.equal(value, plain.network.state_dict()[name]) for name, value in replay.network.state_dict().items()
    )


SCRIPT = """
import sys, torch
from pathlib import Path
sys.path.insert(0, {tests!r})
torch.set_num_threads(1)
from tests.training.small import SETTINGS, train
train(Path({folder!r}), SETTINGS.model_copy(update={{"epochs": 60}}))
"""


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """SIGKILL at arbitrary times, in the middle of steps and of writes; then resumed to the end."""
    root = str(Path(__file__).parents[2])
    settings = SETTINGS.model_copy(update={"epochs": 60})
    whole = train(tmp_path / "whole", settings)
    folder = tmp_path / "killed"
    script = SCRIPT.format(tests=root, folder=str(folder))
    kills = 0
    for pause in (0.05, 0.21, 0.33):
        process = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "OMP_NUM_THREADS": "1"})
        deadline = time.monotonic() + 120
        epochs = len((folder / "log.csv").read_text().splitlines()) if (folder / "log.csv").exists() else 0
        while time.monotonic() < deadline and process.poll() is None:
            log = folder / "log.csv"
            if log.exists() and len(log.read_text().splitlines()) > epochs + 2:
                break
            time.sleep(0.01)
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert kills > 0
    resumed = train(folder, settings)
    for name, value in whole.network.state_dict().items():
        assert (value == resumed.network.state_dict()[name]).all()


@pytest.mark.parametrize(("rate", "idle"), [(1e-9, True), (0.01, False)])
def test_a_network_without_forces_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, rate: float, idle: bool
) -> None:
    """One that has just begun gives forces of next to nothing, as one does whose units are saturated."""
    settings = SETTINGS.model_copy(update={"epochs": 60, "learning_rate": rate})
    result = train(tmp_path, settings)
    sizes = [graph[keys.FORCES].abs().mean() for graph in graphs(8, 11)]
    share = min(row["val_forces_mae"] for row in result.history) / float(np.mean(sizes))
    assert (share > 0.95) == idle
    assert ("hardly better than none" in caplog.text) == idle
    assert (f"labels are {1e3 * float(np.mean(sizes)):.0f} in the mean" in caplog.text) == idle


def test_early_stopping(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"epochs": 50, "patience": 3, "learning_rate": 1e-12, "ema_decay": 0.0})
    result = train(tmp_path, settings)
    assert len(result.history) <= result.best_epoch + 3 < 50


def test_step_with_a_loss_that_is_not_finite_is_skipped_and_too_many_end_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = build_model("cgcnn", E0.elements, seed=1, **SMALL)
    data = graphs(0, 4)
    data[1][keys.FORCES] = data[1][keys.FORCES] * float("inf")
    settings = SETTINGS.model_copy(update={"batch_size": 2, "epochs": 100})
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ComputationError, match="not finite"):
        Training(network, data, graphs(8, 9), settings, tmp_path).run()
    assert "step skipped" in caplog.text
    name = data[1][keys.STRUCTURE_ID]
    skipped = [record.getMessage() for record in caplog.records if "step skipped" in record.getMessage()]
    assert skipped
    assert all(message.endswith(f"({name})") for message in skipped)  # and not the one that shares its batch
    assert all(bool(torch.isfinite(value).all()) for value in network.state_dict().values())
    assert any((value != before[name]).any() for name, value in network.state_dict().items())


def test_finetuning_starts_from_the_pretrained_weights(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    first = train_stage("pretrain", "cgcnn", SMALL, graphs(0, 8), graphs(8, 11), E0, SETTINGS, tmp_path / "a")
    frozen = SETTINGS.model_copy(update={"learning_rate": 1e-12, "epochs": 1})
    second = train_stage(
        "finetune", "cgcnn", SMALL, graphs(0, 8), graphs(8, 11), E0, frozen, tmp_path / "b", start=first.network
    )
    for name, value in first.network.state_dict().items():
        assert torch.allclose(value, second.network.state_dict()[name], atol=1e-9)
    assert "starts from a pretrained network" in caplog.text
    with pytest.raises(InputError, match="another one"):
        train_stage(
            "finetune",
            "cgcnn",
            {**SMALL, "width": 9},
            graphs(0, 8),
            graphs(8, 11),
            E0,
            frozen,
            tmp_path / "c",
            start=first.network,
        )


def test_deployed_potential_adds_the_baseline(tmp_path: Path) -> None:
    train_stage("vanilla", "cgcnn", SMALL, graphs(0, 8), graphs(8, 11), E0, SETTINGS, tmp_path)
    frame = load_dataset("silica_mini")[8]
    atoms = frame.copy()
    from pretrain_mlip import PretrainedMLIP

    atoms.calc = PretrainedMLIP.load(tmp_path / "best.pt", device="cpu")
    assert atoms.get_potential_energy() == pytest.approx(frame.get_potential_energy(), rel=0.01)  # about -7,860 eV
    content = read_checkpoint(tmp_path / "last.pt")
    assert content["training"]["finished"] is True
