"""Sharpness-aware steps, against the formula on a function whose worst place is known."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pretrain_mlip.training.sam import ETA, Ascent


def test_climbs_along_the_scaled_gradient_and_comes_back() -> None:
    matrix = nn.Parameter(torch.tensor([[3.0, -1.0], [0.5, 0.0]], dtype=torch.float64))
    vector = nn.Parameter(torch.tensor([2.0, -2.0], dtype=torch.float64))
    idle = nn.Parameter(torch.ones(2, 2))  # of which the loss knows nothing
    before = [w.clone() for w in (matrix, vector, idle)]
    loss = (matrix.square().sum() + 3 * vector.sum()) * 0.5
    loss.backward()
    g_matrix, g_vector = matrix.detach().clone(), torch.full((2,), 1.5, dtype=torch.float64)
    ascent = Ascent([matrix, vector, idle], 0.7)
    ascent.climb()
    scale = before[0].abs() + ETA
    norm = torch.sqrt((scale * g_matrix).square().sum() + g_vector.square().sum())
    assert torch.allclose(matrix, before[0] + 0.7 * scale**2 * g_matrix / norm, rtol=1e-12, atol=0)
    assert torch.allclose(vector, before[1] + 0.7 * g_vector / norm, rtol=1e-12, atol=0)
    assert torch.equal(idle, before[2])
    assert matrix.grad is None
    # The step has length rho where lengths are measured relative to the weights
    step = torch.cat([((matrix - before[0]) / scale).flatten(), vector - before[1]])
    assert float(step.detach().norm()) == pytest.approx(0.7, rel=1e-12)
    ascent.descend()
    for w, old in zip((matrix, vector, idle), before, strict=True):
        assert torch.equal(w, old)


def test_stays_where_the_gradient_is_zero() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    (0 * weight.sum()).backward()
    ascent = Ascent([weight], 1.0)
    ascent.climb()
    assert torch.equal(weight, torch.ones(2, 2))
    ascent.descend()
    assert torch.equal(weight, torch.ones(2, 2))
