"""Traced potentials give the numbers of plain Python: run as they are, as TorchScript, and through torch.export."""

from __future__ import annotations

import io
from functools import cache, partial
from typing import Any

import pytest
import torch
from ase import Atoms
from tests.conftest import ELEMENTS, STRUCTURES, hard_eam, quartz, wide_zbl
from torch import Tensor, fx
from torch_geometric.data import Data

from pretrain_mlip import keys
from pretrain_mlip.errors import InputError
from pretrain_mlip.graphs.graph import edge_vectors, make_graph
from pretrain_mlip.potentials.base import Potential, ReferenceEnergies, SumPotential, forces_from_gradient
from pretrain_mlip.potentials.networks import available_models, build_model
from pretrain_mlip.potentials.networks.base import Network
from pretrain_mlip.potentials.tracing import export, script, trace

MORE: dict[str, dict[str, Any]] = {  # to be quick
    "cgcnn": {"convolutions": 2},
    "m3gnet": {"blocks": 1},
    "torchmd_net": {"layers": 2},
}
ORIGINS = ReferenceEnergies({"O": -430.0, "Si": -105.0})


def network(name: str) -> Network:
    # the cutoff is below that of the EAM and above that of the repulsion
    made = build_model(name, ELEMENTS, seed=3, width=16, cutoff=4.5, **MORE.get(name, {}))
    made.set_dtype(torch.float64)
    return made


def compositions() -> dict[str, Potential]:
    found: dict[str, Potential] = {"e0": ORIGINS, "zbl": wide_zbl(), "eam": hard_eam()}
    for name in available_models():
        found[name] = network(name)
        found[f"e0 + zbl + {name}"] = SumPotential([ORIGINS, wide_zbl(), network(name)])
        found[f"eam + {name}"] = SumPotential([hard_eam(), network(name)])
    return found


POTENTIALS = compositions()
every_potential = pytest.mark.parametrize("name", list(POTENTIALS))


def with_an_isolated_atom() -> Atoms:
    return STRUCTURES["molecule without a cell"] + Atoms("O", positions=[[40.0, 0.0, 0.0]])


def beyond_the_shorter_cutoffs() -> Atoms:
    """Edges within 6 Å, of the EAM, none within any other cutoff."""
    return Atoms("SiOSi", positions=[[0, 0, 0], [5.0, 0, 0], [10.0, 0, 0]])


FRAMES = [
    quartz(),
    STRUCTURES["triclinic"],
    STRUCTURES["slab"],
    STRUCTURES["one atom, cell smaller than the cutoff"] * (2, 1, 1),
    with_an_isolated_atom(),
    beyond_the_shorter_cutoffs(),
]


def graph_of(potential: Potential, atoms: Atoms) -> Data:
    return make_graph(atoms, max(potential.cutoff, 3.0))


def inputs(potential: Potential, graph: Data) -> tuple[Tensor, Tensor, Tensor]:
    return potential.types(graph[keys.ATOMIC_NUMBERS]), graph[keys.EDGE_INDEX], edge_vectors(graph)


@cache
def traced(name: str) -> fx.GraphModule:
    return trace(POTENTIALS[name])


def check(function: Any, potential: Potential) -> None:
    for _ in range(2):  # TorchScript changes its mind after the first calls
        for atoms in FRAMES:
            graph = graph_of(potential, atoms)
            given = inputs(potential, graph)
            if given[1].shape[1] < 2:
                continue
            with torch.no_grad():
                # Its parts are given the edges within their own cutoffs, and the EAM has derivatives of its own
                expected = potential(graph)
                energies, gradient = function(*given)
            forces = forces_from_gradient(gradient, given[1], len(atoms))
            # the same operations in float64, where sums may be taken in another order
            assert torch.allclose(energies.double(), expected[keys.ENERGIES], rtol=1e-12, atol=1e-10)
            assert torch.allclose(forces, expected[keys.FORCES], rtol=1e-12, atol=1e-10)


@every_potential
def test_traced_graph_gives_the_same(name: str) -> None:
    graph = traced(name)
    check(graph, POTENTIALS[name])
    assert all(node.op != "call_module" for node in graph.graph.nodes)
    unwanted = ("detach", "addmm.", "index_add.")
    assert not any(name in str(node.target) for node in graph.graph.nodes for name in unwanted)


def test_network_that_does_not_fade_is_not_traced_with_longer_potentials() -> None:
    sharp = build_model("torchmd_net", ELEMENTS, width=16, cutoff=4.5, layers=1, vector_cutoff=False)
    with pytest.raises(InputError, match=r"'torchmd_net' does not fade at its cutoff of 4\.5 Å, and cannot .* 6\.0 Å"):
        trace(SumPotential([hard_eam(), sharp]))
    trace(SumPotential([ORIGINS, sharp]))  # nothing is longer


@every_potential
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_gives_the_same(name: str) -> None:
    file = io.BytesIO()
    torch.jit.save(script(traced(name)), file)
    file.seek(0)
    check(torch.jit.load(file), POTENTIALS[name])


@every_potential
def test_torch_export_gives_the_same(name: str) -> None:
    file = io.BytesIO()
    torch.export.save(export(traced(name), POTENTIALS[name]), file)
    file.seek(0)
    check(torch.export.load(file).module(), POTENTIALS[name])


@pytest.mark.parametrize("name", available_models())
def test_a_loss_on_forces_has_the_same_gradients(name: str) -> None:
    potential = network(name)
    parameters = dict(potential.named_parameters())
    given = inputs(potential, graph_of(potential, STRUCTURES["triclinic"]))
    gradients = []
    for function in (
        trace(potential, differentiable=True),
        partial(potential.energies_and_gradient, create_graph=True),
    ):
        energies, gradient = function(*given)
        loss = (energies + 0.3).square().sum() + (gradient - 0.1).square().sum()
        gradients.append(torch.autograd.grad(loss, list(parameters.values()), allow_unused=True))
    for parameter, ours, theirs in zip(parameters, *gradients, strict=True):
        assert (ours is None) == (theirs is None), parameter
        if ours is not None and theirs is not None:
            assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-11 * float(theirs.abs().max())), parameter


def test_a_graph_follows_the_weights_of_its_potential() -> None:
    potential = network("cgcnn")
    graph, given = trace(potential), inputs(potential, graph_of(potential, quartz()))
    before = graph(*given)[0]
    with torch.no_grad():
        for parameter in potential.parameters():
            parameter.mul_(1.5)
    assert not torch.allclose(graph(*given)[0], before)
    assert torch.allclose(graph(*given)[0], potential.energies_and_gradient(*given)[0], rtol=1e-12)


def test_a_memory_limit_does_not_get_into_the_graph() -> None:
    potential = network("cgcnn")
    potential.set_memory_limit(1e-9)
    graph = trace(potential)
    assert potential.memory_limit == 1e-9
    potential.memory_limit = None
    check(graph, potential)
