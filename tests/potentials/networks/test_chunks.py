"""Messages computed in chunks, as a memory limit asks for, are the same as at once."""

from __future__ import annotations

import pytest
from tests.conftest import ELEMENTS, STRUCTURES, lively

from pretrain_mlip import PretrainedMLIP
from pretrain_mlip.errors import InputError
from pretrain_mlip.graphs.graph import edge_vectors, make_batch, make_graph
from pretrain_mlip.potentials.networks import available_models, build_model
from pretrain_mlip.potentials.networks.base import EDGES_PER_CHUNK, Network


@pytest.fixture(params=available_models())
def network(request: pytest.FixtureRequest) -> Network:
    return lively(build_model(request.param, ELEMENTS, seed=5))


@pytest.mark.parametrize("chunk", [1, 37, 100_000])
def test_chunks_give_the_same_energies_and_gradient(
    network: Network, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["triclinic", "isolated atom", "slab"] if chunk > 1 else ["wire", "isolated atom"]
    batch = make_batch([make_graph(STRUCTURES[name], network.cutoff) for name in names])
    arguments = (network.types(batch["atomic_numbers"]), batch["edge_index"], edge_vectors(batch))
    energies, gradient = network.energies_and_gradient(*arguments)
    monkeypatch.setattr(network, "chunk", lambda edges: chunk)  # noqa: ARG005
    found, found_gradient = network.energies_and_gradient(*arguments)
    assert found.numpy() == pytest.approx(energies.numpy(), abs=1e-12)  # sums in another order
    assert found_gradient.numpy() == pytest.approx(gradient.numpy(), abs=1e-12)
    assert not found.requires_grad


def test_training_does_not_use_chunks(network: Network) -> None:
    network.set_memory_limit(1e-9)
    graph = make_graph(STRUCTURES["quartz"], network.cutoff)
    network(graph, create_graph=True)["forces"].square().sum().backward()
    norms = [float(p.grad.norm()) for p in network.parameters() if p.grad is not None]
    assert max(norms) > 1e-3


def test_a_memory_limit_makes_chunks(network: Network) -> None:
    atoms = STRUCTURES["quartz"] * (2, 2, 2)
    edges = make_graph(atoms, network.cutoff)["edge_index"].shape[1]
    energy, forces = PretrainedMLIP(network).get_potential_energy(atoms), PretrainedMLIP(network).get_forces(atoms)
    assert network.chunk(edges) is None
    limited = PretrainedMLIP(network, memory_limit=edges * network.floats_per_edge() * 8 / 2**30 / 3.5)
    assert network.chunk(edges) in (int(edges / 3.5), EDGES_PER_CHUNK)
    assert limited.get_potential_energy(atoms) == pytest.approx(energy, abs=1e-10)
    assert limited.get_forces(atoms) == pytest.approx(forces, abs=1e-12)


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan")])
def test_a_memory_limit_is_positive(network: Network, limit: float) -> None:
    with pytest.raises(InputError, match="memory_limit"):
        PretrainedMLIP(network, memory_limit=limit)
