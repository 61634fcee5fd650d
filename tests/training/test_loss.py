"""The loss and the error sums, against sums written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.conftest import STRUCTURES
from torch_geometric.data import Data

from pretrain_mlip import keys
from pretrain_mlip.graphs.graph import make_batch, make_graph
from pretrain_mlip.potentials.networks import build_model
from pretrain_mlip.structures.io import set_labels
from pretrain_mlip.training.loss import error_sums, weighted_loss
from pretrain_mlip.training.settings import LossSettings


def batch() -> Data:
    first, second = STRUCTURES["quartz"].copy(), STRUCTURES["molecule without a cell"].copy()
    first.info["config_weight"] = 3.0
    set_labels(first, 2.0, np.zeros((9, 3)), np.full(6, 0.5))
    set_labels(second, -1.0, np.ones((3, 3)))
    return make_batch([make_graph(atoms, 3.0, labels=True) for atoms in (first, second)])


def prediction(graph: Data) -> dict[str, torch.Tensor]:
    return {
        keys.ENERGY: torch.tensor([11.0, -4.0]),
        keys.FORCES: torch.full_like(graph[keys.FORCES], 0.25),
        keys.STRESS: torch.full_like(graph[keys.STRESS], 0.4),
    }


@pytest.mark.parametrize("kind", ["mse", "mae", "huber"])
def test_loss(kind: str) -> None:
    graph = batch()
    settings = LossSettings(kind=kind, energy=2.0, forces=5.0, stress=0.5, huber_delta=0.2)  # type: ignore[arg-type]

    def cost(value: float) -> float:
        value = abs(value)
        if kind == "mse":
            return value**2
        if kind == "mae":
            return value
        return 0.5 * value**2 / 0.2 if value < 0.2 else value - 0.1

    scale = 2.0
    energy = (3.0 * cost(9.0 / 9 / scale) + 1.0 * cost(-3.0 / 3 / scale)) / 2.0
    forces = (9 * 3.0 * cost(0.25 / scale) + 3 * 1.0 * cost(-0.75 / scale)) / 12.0
    volume = STRUCTURES["quartz"].get_volume()
    stress = 3.0 * cost(-0.1 * volume / (9 * scale))  # the molecule has none
    expected = 2.0 * energy + 5.0 * forces + 0.5 * stress
    assert float(weighted_loss(prediction(graph), graph, settings, scale)) == pytest.approx(expected, rel=1e-6)


def test_missing_labels_are_left_out() -> None:
    atoms = STRUCTURES["quartz"].copy()
    set_labels(atoms, 2.0, None)
    graph = make_batch([make_graph(atoms, 3.0, labels=True)])
    predicted = prediction(graph) | {keys.ENERGY: torch.tensor([11.0])}
    loss = weighted_loss(predicted, graph, LossSettings(kind="mae"), 1.0)
    assert float(loss) == pytest.approx(abs(11.0 - 2.0) / 9)
    sums = error_sums(predicted, graph)
    assert sums[keys.FORCES] == (0.0, 0)


def test_error_sums() -> None:
    graph = batch()
    sums = error_sums(prediction(graph), graph)
    assert sums[keys.ENERGY] == (pytest.approx(1.0 + 1.0), 2)
    assert sums[keys.FORCES] == (pytest.approx(27 * 0.25 + 9 * 0.75), 36)
    assert sums[keys.STRESS] == (pytest.approx(6 * 0.1), 6)


def test_gradients_are_finite_where_structures_without_volume_share_a_batch() -> None:
    """Molecules and slabs beside a crystal with stress, a weight of zero, a stress label that means nothing."""
    slab = STRUCTURES["slab"].copy()
    set_labels(slab, 1.0, np.zeros((len(slab), 3)), np.ones(6))
    crystal, molecule = STRUCTURES["quartz"].copy(), STRUCTURES["molecule without a cell"].copy()
    set_labels(crystal, 2.0, np.zeros((9, 3)), np.full(6, 0.5))
    set_labels(molecule, 2.0, np.zeros((3, 3)))
    molecule.info["config_weight"] = 0.0
    graph = make_batch([make_graph(atoms, 3.5, labels=True) for atoms in (crystal, molecule, slab)])
    network = build_model("cgcnn", ["O", "Si"], cutoff=3.5, width=8)
    loss = weighted_loss(network(graph, create_graph=True), graph, LossSettings(), 1.0)
    loss.backward()
    assert bool(torch.isfinite(loss))
    assert all(bool(torch.isfinite(value.grad).all()) for value in network.parameters() if value.grad is not None)
    alone = make_batch([make_graph(molecule, 3.5, labels=True)])
    assert float(weighted_loss(network(alone, create_graph=True), alone, LossSettings(), 1.0)) == 0.0
