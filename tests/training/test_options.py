"""Every option of a training does what its description says."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.small import E0, SETTINGS, SMALL, graphs, small_network, train
from torch_geometric.data import Data

from pretrain_mlip import keys
from pretrain_mlip.errors import InputError
from pretrain_mlip.graphs.graph import make_batch
from pretrain_mlip.potentials.checkpoint import load_potential, read_checkpoint
from pretrain_mlip.settings import read_settings
from pretrain_mlip.training.loop import Training
from pretrain_mlip.training.settings import LossSettings, ReplaySettings, SAMSettings, TrainingSettings
from pretrain_mlip.training.stages import train_stage
from pretrain_mlip.training.state import TrainingFolder, last_note

ONE_STEP = SETTINGS.model_copy(update={"batch_size": 8, "schedule": "constant", "warmup_epochs": 0.0})  # in an epoch
STILL = {"learning_rate": 1e-14, "weight_decay": 0.0}


def weights(state: dict[str, Any], name: str) -> torch.Tensor:
    """Those of a state, in one row."""
    prefix = {"network": "", "average": "module."}[name]
    trained = [key for key, _ in small_network().named_parameters()]
    return torch.cat([state[name][prefix + key].flatten() for key in trained])


def state_of(folder: Path) -> dict[str, Any]:
    return read_checkpoint(folder / "last.pt")["training"]


def test_the_metric_chooses_the_best_epoch(tmp_path: Path) -> None:
    best = {}
    for metric in ("forces", "energy", "stress"):
        result = train(tmp_path / metric, SETTINGS.model_copy(update={"epochs": 12, "metric": metric}))
        errors = [row[f"val_{metric}_mae"] for row in result.history]
        best[metric] = result.best_epoch
        assert errors[result.best_epoch - 1] == min(errors)
    assert len(set(best.values())) > 1  # or it may as well be ignored


def test_a_metric_without_labels_is_refused_at_once(tmp_path: Path) -> None:
    validation = graphs(8, 11)
    for graph in validation:
        graph[keys.STRESS] = torch.full_like(graph[keys.STRESS], math.nan)
    with pytest.raises(InputError, match="no validation structure has a label of the stress"):
        Training(small_network(), graphs(0, 8), validation, SETTINGS.model_copy(update={"metric": "stress"}), tmp_path)


def test_weights_change_along_a_line(tmp_path: Path) -> None:
    """Of a network that rests, with one batch an epoch, the loss does what the weight does."""
    loss = LossSettings.model_validate({"energy": 0, "stress": 0, "forces": {"weight": 3.0, "final_weight": 1.0}})
    result = train(tmp_path, ONE_STEP.model_copy(update={**STILL, "loss": loss}))
    losses = [row["loss"] for row in result.history]
    assert losses == pytest.approx([losses[0] * weight / 3 for weight in (3.0, 2.6, 2.2, 1.8, 1.4)], rel=1e-6)


def test_a_loss_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="energy, forces and stress all have no weight"):
        read_settings(TrainingSettings, None, ["loss.energy=0", "loss.forces=0", "loss.stress=0"])
    assert LossSettings.model_validate({"energy": 0, "stress": 0, "forces": {"weight": 0, "final_weight": 1}})


def test_averages_decay(tmp_path: Path) -> None:
    settings = ONE_STEP.model_copy(update={"ema_decay": 0.75})
    states = []
    for steps in (1, 2):
        train(tmp_path / str(steps), settings.model_copy(update={"epochs": steps}))
        states.append(state_of(tmp_path / str(steps)))
    first, second = (weights(state, "network") for state in states)
    assert torch.equal(weights(states[0], "average"), first)
    assert torch.allclose(weights(states[1], "average"), 0.75 * first + 0.25 * second, rtol=1e-6, atol=1e-8)
    assert not torch.allclose(first, second, atol=1e-4)
    deployed = load_potential(tmp_path / "1" / "best.pt").state_dict()
    assert torch.equal(torch.cat([deployed[name].flatten() for name, _ in small_network().named_parameters()]), first)


def test_gradients_are_clipped(tmp_path: Path) -> None:
    """AdamW does not feel how long a gradient is unless it is short beside its epsilon of 1e-8."""
    change = {}
    for clip in (10.0, 1e-13):
        settings = ONE_STEP.model_copy(update={"epochs": 1, "clip": clip, "weight_decay": 0.0})
        train(tmp_path / f"{clip}", settings)
        before = torch.cat([parameter.detach().flatten() for parameter in small_network().parameters()])
        change[clip] = float((weights(state_of(tmp_path / f"{clip}"), "network") - before).abs().max())
    assert change[10.0] == pytest.approx(0.01, rel=0.05)  # the learning rate
    assert change[1e-13] < 1e-6


def test_validated_when_asked_and_at_the_end(tmp_path: Path) -> None:
    result = train(tmp_path, SETTINGS.model_copy(update={"validate_every": 2}))
    assert [row["epoch"] for row in result.history if "val_forces_mae" in row] == [2, 4, 5]
    assert result.best_epoch in (2, 4, 5)


def test_states_are_written_within_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[int, int]] = []
    write = TrainingFolder.write_last

    def noted(self: TrainingFolder, content: dict[str, Any], history: list[Any]) -> None:
        written.append((content["training"]["epoch"], content["training"]["batch"]))
        write(self, content, history)

    monkeypatch.setattr(TrainingFolder, "write_last", noted)
    train(tmp_path, SETTINGS.model_copy(update={"epochs": 1, "checkpoint_minutes": 1e-9}))
    assert written == [(0, 1), (0, 2), (0, 3), (1, 0)]


@pytest.mark.parametrize(
    ("batch_size", "share", "size"), [(2, 0.25, 1), (4, 0.05, 1), (6, 0.25, 2), (8, 0.25, 3), (6, 0.5, 6), (2, 0.8, 8)]
)
def test_share_of_a_batch(batch_size: int, share: float, size: int) -> None:
    assert ReplaySettings(share=share).size(batch_size) == size


def test_replayed_structures_have_their_share_and_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[list[float]] = []
    step = Training._step

    def noted(self: Training, graph: Data) -> float | None:
        batches.append(graph[keys.CONFIG_WEIGHT].tolist())
        return step(self, graph)

    monkeypatch.setattr(Training, "_step", noted)
    train_stage(
        *("replay", "cgcnn", SMALL, graphs(0, 6), graphs(8, 11), E0, SETTINGS, tmp_path),
        start=small_network(),
        replayed=graphs(6, 8),
        replay=ReplaySettings(share=0.4, weight=0.125),
    )
    assert len(batches) == SETTINGS.epochs * 2
    assert all(sorted(batch) == [0.125, 0.125, 1.0, 1.0, 1.0] for batch in batches)


def test_errors_before_finetuning_are_those_of_the_pretrained_network(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    validation, network = graphs(8, 11), small_network()
    train_stage("finetune", "cgcnn", SMALL, graphs(0, 8), validation, E0, SETTINGS, tmp_path, start=network)
    (told,) = re.findall(r"before training: energy ([\d.]+) meV/atom, forces (\d+) meV/Å", caplog.text)
    batch = make_batch(validation)
    found = network(batch)
    energy = 1e3 * float((found[keys.ENERGY] - batch[keys.ENERGY]).abs().mean()) / 24  # atoms in each
    forces = 1e3 * float((found[keys.FORCES] - batch[keys.FORCES]).abs().mean())
    assert [float(number) for number in told] == [pytest.approx(energy, rel=1e-3), pytest.approx(forces, abs=0.51)]


@pytest.mark.parametrize("pretrained", [True, False])
def test_a_fresh_output_is_zero(tmp_path: Path, pretrained: bool) -> None:
    settings = SETTINGS.model_copy(update={**STILL, "epochs": 1})
    start = small_network() if pretrained else None
    found = train_stage(
        *("delta", "cgcnn", SMALL, graphs(0, 8), graphs(8, 11), E0, settings, tmp_path), start=start, fresh_output=True
    )
    batch = make_batch(graphs(8, 11))
    assert float(small_network()(batch)[keys.FORCES].detach().abs().max()) > 1e-3
    assert float(found.network(batch)[keys.FORCES].detach().abs().max()) < 1e-9


def test_skipped_steps_are_counted(tmp_path: Path) -> None:
    data = graphs(0, 6)
    data[1][keys.FORCES] = data[1][keys.FORCES] * float("inf")
    result = Training(small_network(), data, graphs(8, 11), SETTINGS, tmp_path).run()
    assert [row["skipped"] for row in result.history] == [1, 2, 3, 4, 5]


def test_a_radius_of_nothing_is_refused() -> None:
    for rho in ("0", "-0.1"):
        with pytest.raises(InputError, match="'rho': input should be greater than 0"):
            read_settings(SAMSettings, None, [f"rho={rho}"])


def test_the_note_beside_a_bar_has_the_newest_errors(tmp_path: Path) -> None:
    assert last_note(tmp_path / "log.csv") == (0, "")
    result = train(tmp_path, SETTINGS.model_copy(update={"validate_every": 3, "epochs": 4}))
    rows = result.history
    epochs, note = last_note(tmp_path / "log.csv")
    assert epochs == 4
    forces = 1e3 * rows[3]["val_forces_mae"]
    energy = 1e3 * rows[3]["val_energy_mae"]
    assert note == f"loss {rows[3]['loss']:.4f}, val E {energy:.1f} meV/atom, F {forces:.0f} meV/Å"
