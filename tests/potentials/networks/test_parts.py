"""Messages computed in parts, as a memory limit asks for, are the same as at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.conftest import ELEMENTS, STRUCTURES

from pretrain_mlip import PretrainedMLIP
from pretrain_mlip.graphs.graph import edge_vectors, make_batch, make_graph
from pretrain_mlip.potentials.networks import available_models, build_model
from pretrain_mlip.potentials.networks.base import Network


@pytest.fixture(params=available_models())
def network(request: pytest.FixtureRequest) -> Network:
    model = build_model(request.param, ELEMENTS, seed=5)
    model.set_dtype(torch.float64)
    return model


def _evaluate(network: Network) -> list[np.ndarray]:
    batch = make_batch([make_graph(atoms, network.cutoff) for atoms in STRUCTURES.values()])
    types = network.types(batch["atomic_numbers"])
    network.zero_grad()
    energies, gradient = network.energies_and_gradient(
        types, batch["edge_index"], edge_vectors(batch), create_graph=True
    )
    (energies.square().sum() + gradient.square().sum()).backward()
    weights = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in network.parameters()]
    return [value.detach().numpy() for value in (energies, gradient, *weights)]


@pytest.mark.parametrize("parts", [2, 7])
def test_parts_give_energies_forces_and_training_gradients(
    network: Network, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _evaluate(network)
    monkeypatch.setattr(network, "parts_of", lambda edges: parts)  # noqa: ARG005
    for found, expected in zip(_evaluate(network), whole, strict=True):
        scale = max(1.0, float(np.abs(expected).max()))
        assert found == pytest.approx(expected, abs=1e-11 * scale)  # sums in another order


def test_a_memory_limit_makes_parts(network: Network) -> None:
    atoms = STRUCTURES["quartz"] * (2, 2, 2)
    edges = make_graph(atoms, network.cutoff)["edge_index"].shape[1]
    energy = PretrainedMLIP(network).get_potential_energy(atoms)
    assert network.parts_of(edges) == 1
    limited = PretrainedMLIP(network, memory_limit=edges * network.floats_per_edge() * 8 / 2**30 / 3.5)
    assert network.parts_of(edges) == 4
    assert limited.get_potential_energy(atoms) == pytest.approx(energy, abs=1e-10)


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan")])
def test_a_memory_limit_is_positive(network: Network, limit: float) -> None:
    with pytest.raises(ValueError, match="memory_limit"):
        PretrainedMLIP(network, memory_limit=limit)
