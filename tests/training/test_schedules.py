"""Learning rates, against their formulas."""

from __future__ import annotations

import math

import pytest
import torch

from pretrain_mlip.training.schedules import Schedule
from pretrain_mlip.training.settings import TrainingSettings


def schedule(**options: object) -> Schedule:
    settings = TrainingSettings(epochs=10, learning_rate=0.1, **options)  # type: ignore[arg-type]
    return Schedule(torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))], lr=0.1), settings)


def rates(made: Schedule, steps: int = 4) -> list[float]:
    found = []
    for number in range(10 * steps):
        made.step(number / steps)
        found.append(made.rate)
    return found


def test_cosine_after_a_warm_up() -> None:
    found = rates(schedule(warmup_epochs=2.0, final_learning_rate=0.02))
    assert 0 < found[0] < 0.001
    assert found[:8] == sorted(found[:8])
    assert found[8] == pytest.approx(0.1)
    assert found[24] == pytest.approx(0.1 * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * 0.5))))
    assert found[8:] == sorted(found[8:], reverse=True)
    assert found[-1] < 0.005


def test_constant() -> None:
    assert rates(schedule(schedule="constant", warmup_epochs=0.0)) == [0.1] * 40


@pytest.mark.parametrize("warmup", [0.0, 2.0])
def test_plateau(warmup: float) -> None:
    made = schedule(
        schedule="plateau", warmup_epochs=warmup, plateau_patience=1, plateau_factor=0.5, final_learning_rate=0.3
    )
    made.step(0.0)
    made.step(warmup)
    assert made.rate == pytest.approx(0.1)
    found = []
    for number, error in enumerate([3.0, 2.0, 2.5, 2.5, 1.0, math.nan, 1.5, 1.5, 1.5]):
        made.validated(error)
        made.step(warmup + 0.5 * (number + 1))
        found.append(made.rate)
    assert found == pytest.approx([0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.03, 0.03, 0.03])
