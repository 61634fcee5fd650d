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
from pretrain_mlip.training.loss import error_sums, loss_terms, weighted_loss
from pretrain_mlip.training.settings import LossSettings


def parts() -> list[Data]:
    first, second = STRUCTURES["quartz"].copy(), STRUCTURES["molecule without a cell"].copy()
    first.info["config_weight"] = 3.0
    set_labels(first, 2.0, np.zeros((9, 3)), np.full(6, 0.5))
    set_labels(second, -1.0, np.ones((3, 3)))
    return [make_graph(atoms, 3.0, labels=True) for atoms in (first, second)]


def batch() -> Data:
    return make_batch(parts())


def loss_of(predicted: dict[str, torch.Tensor], graph: Data, settings: LossSettings, scale: float) -> torch.Tensor:
    return weighted_loss(loss_terms(predicted, graph, settings, scale), settings)


def prediction(graph: Data) -> dict[str, torch.Tensor]:
    return {
        keys.ENERGY: torch.tensor([11.0, -4.0]),
        keys.FORCES: torch.full_like(graph[keys.FORCES], 0.25),
        keys.STRESS: torch.full_like(graph[keys.STRESS], 0.4),
    }


@pytest.mark.parametrize("kind", ["l2", "l1", "huber"])
def test_loss(kind: str) -> None:
    graph = batch()
    settings = LossSettings(kind=kind, energy=2.0, forces=5.0, stress=0.5, huber_delta=0.2)  # type: ignore[arg-type]

    def cost(value: float) -> float:
        value = abs(value)
        if kind == "l2":
            return value**2
        if kind == "l1":
            return value
        return 0.5 * value**2 / 0.2 if value < 0.2 else value - 0.1

    scale = 2.0
    energy = (3.0 * cost(9.0 / 9 / scale) + 1.0 * cost(-3.0 / 3 / scale)) / 2.0
    forces = (9 * 3.0 * cost(0.25 / scale) + 3 * 1.0 * cost(-0.75 / scale)) / 12.0
    volume = STRUCTURES["quartz"].get_volume()
    stress = 3.0 * cost(-0.1 * volume / (9 * scale))  # the molecule has none
    expected = 2.0 * energy + 5.0 * forces + 0.5 * stress
    assert float(loss_of(prediction(graph), graph, settings, scale)) == pytest.approx(expected, rel=1e-6)


def test_missing_labels_are_left_out() -> None:
    atoms = STRUCTURES["quartz"].copy()
    set_labels(atoms, 2.0, None)
    graph = make_batch([make_graph(atoms, 3.0, labels=True)])
    predicted = prediction(graph) | {keys.ENERGY: torch.tensor([11.0])}
    loss = loss_of(predicted, graph, LossSettings(kind="l1"), 1.0)
    assert float(loss) == pytest.approx(abs(11.0 - 2.0) / 9)
    sums = error_sums(predicted, graph)
    assert sums[keys.FORCES].tolist() == [[0.0, 0.0]]


def test_error_sums() -> None:
    graph = batch()
    sums = error_sums(prediction(graph), graph)
    assert sums[keys.ENERGY].numpy() == pytest.approx(np.array([[1.0, 1], [1.0, 1]]))
    assert sums[keys.FORCES].numpy() == pytest.approx(np.array([[27 * 0.25, 27], [9 * 0.75, 9]]))
    assert sums[keys.STRESS].numpy() == pytest.approx(np.array([[6 * 0.1, 6], [0.0, 0]]))


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
    loss = loss_of(network(graph, create_graph=True), graph, LossSettings(), 1.0)
    loss.backward()
    assert bool(torch.isfinite(loss))
    assert all(bool(torch.isfinite(value.grad).all()) for value in network.parameters() if value.grad is not None)
    alone = make_batch([make_graph(molecule, 3.5, labels=True)])
    assert float(loss_of(network(alone, create_graph=True), alone, LossSettings(), 1.0)) == 0.0


def test_every_term_has_a_cost_and_a_weight_that_may_change() -> None:
    graph = batch()
    settings = LossSettings(
        kind="l1", energy={"weight": 2.0, "kind": "l2", "final_weight": 10.0}, forces=0.0, stress=0.0
    )  # type: ignore[arg-type]
    terms = loss_terms(prediction(graph), graph, settings, 1.0)
    assert list(terms) == [keys.ENERGY]
    squares = (3.0 * 1.0**2 + 1.0 * 1.0**2) / 2
    for progress, weight in ((0.0, 2.0), (0.5, 6.0), (1.0, 10.0)):
        assert float(weighted_loss(terms, settings, progress)) == pytest.approx(weight * squares)


def test_terms_of_parts_of_a_batch_add_up() -> None:
    """What several processes do with theirs."""
    graph, settings = batch(), LossSettings()
    network = build_model("cgcnn", ["O", "Si"], cutoff=3.0, width=8)
    whole = loss_terms(network(graph), graph, settings, 1.0)
    terms = [loss_terms(network(one), one, settings, 1.0) for one in map(make_batch, zip(parts()))]
    for name, term in whole.items():
        assert float(term.total) == pytest.approx(sum(float(part[name].total) for part in terms), rel=1e-5)
        assert float(term.count) == sum(float(part[name].count) for part in terms)
