"""The network that docs/adding-a-network.md adds is one: its file and its line are all that it takes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ase.calculators.fd import calculate_numerical_forces
from tests.conftest import STRUCTURES, lively

from pretrain_mlip import PretrainedMLIP, available_models, build_model, keys
from pretrain_mlip.graphs.graph import edge_vectors, make_graph
from pretrain_mlip.potentials import networks
from pretrain_mlip.potentials.checkpoint import load_potential, save_potential
from pretrain_mlip.potentials.tracing import trace


def test_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[3] / "docs")
    monkeypatch.setitem(networks._NETWORKS, "pair", ("pair_network", "PairNetwork"))
    assert "pair" in available_models()
    network = lively(build_model("pair", ["O", "Si"], seed=1))
    atoms = STRUCTURES["triclinic"].copy()
    atoms.calc = PretrainedMLIP(network)
    forces = atoms.get_forces()
    assert abs(forces).max() > 0.1
    assert forces == pytest.approx(calculate_numerical_forces(atoms, eps=1e-4), abs=1e-6)
    save_potential(tmp_path / "pair.pt", network)
    graph = make_graph(atoms, network.cutoff)
    found = load_potential(tmp_path / "pair.pt")(graph)
    assert found[keys.FORCES].numpy() == pytest.approx(forces, abs=1e-12)
    energies, _ = trace(network)(network.types(graph[keys.ATOMIC_NUMBERS]), graph[keys.EDGE_INDEX], edge_vectors(graph))
    assert torch.allclose(energies.detach(), found[keys.ENERGIES], rtol=1e-12, atol=1e-12)
    network.reset_output()
    assert network(graph)[keys.ENERGY].abs().max() == 0
