"""Compiled networks: the numbers of plain Python, in calculators and in trainings, for one compilation."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import ELEMENTS, STRUCTURES, hard_eam, quartz, wide_zbl

from pretrain_mlip import keys
from pretrain_mlip.calculators.ase import PretrainedMLIP
from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.graphs.graph import make_batch, make_graph
from pretrain_mlip.potentials.base import ReferenceEnergies, SumPotential
from pretrain_mlip.potentials.checkpoint import load_potential, save_potential
from pretrain_mlip.potentials.compiled import CompiledNetwork, compiled, uncompiled
from pretrain_mlip.potentials.networks import available_models, build_model
from pretrain_mlip.potentials.networks.base import Network
from pretrain_mlip.potentials.tracing import trace
from pretrain_mlip.structures.datasets import load_dataset
from pretrain_mlip.training.loop import Training
from pretrain_mlip.training.settings import TrainingSettings
from pretrain_mlip.training.stages import residual_graphs

ORIGINS = ReferenceEnergies({"O": -430.0, "Si": -105.0})

needs_compiler = pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="no C++ compiler")


def network(dtype: torch.dtype = torch.float64) -> Network:
    made = build_model("cgcnn", ELEMENTS, seed=3, width=8, convolutions=1, gaussians=8, cutoff=4.0)
    made.set_dtype(dtype)
    return made


@pytest.fixture
def one_compilation() -> Iterator[None]:
    with torch._dynamo.config.patch(error_on_recompile=True):
        yield


@needs_compiler
def test_code_follows_the_network_there_and_back() -> None:
    plain = network()
    fast = compiled(plain)
    graph = make_graph(quartz(), plain.cutoff)
    fast(graph)
    plain.set_dtype(torch.float32)
    fast(graph)
    plain.set_dtype(torch.float64)
    plain.set_scales(3.0, 5.0)  # of buffers that took the place of those that were compiled
    assert torch.equal(fast(graph)[keys.ENERGY], compiled(plain)(graph)[keys.ENERGY])
    assert fast(graph)[keys.ENERGY].numpy() == pytest.approx(plain(graph)[keys.ENERGY].numpy(), rel=1e-10)


@needs_compiler
def test_a_compiled_potential_is_the_potential_to_files_and_calculators(tmp_path: Path) -> None:
    plain = SumPotential([ORIGINS, network()])
    fast = compiled(plain)
    save_potential(tmp_path / "fast.pt", fast)
    graph = make_graph(quartz(), plain.cutoff)
    energy = plain(graph)[keys.ENERGY]
    assert torch.equal(load_potential(tmp_path / "fast.pt")(graph)[keys.ENERGY], energy)
    assert fast(graph)[keys.ENERGY].numpy() == pytest.approx(energy.numpy(), rel=1e-10)
    assert torch.equal(uncompiled(pickle.loads(pickle.dumps(fast)))(graph)[keys.ENERGY], energy)  # noqa: S301
    fast.set_memory_limit(2.0)
    fast.set_products("bfloat16")
    (part,) = (part for part in plain.potentials() if isinstance(part, Network))
    assert (part.memory_limit, part.products) == (2.0, "bfloat16")
    calculator = PretrainedMLIP(compiled(network()))
    assert calculator.compile
    assert isinstance(calculator.potential, Network)
    assert pickle.loads(pickle.dumps(calculator)).compile  # noqa: S301


@pytest.mark.parametrize(("dtype", "relative"), [("float64", 1e-10), ("float32", 1e-5)])
@needs_compiler
@pytest.mark.usefixtures("one_compilation")
def test_calculator_gives_the_same_numbers(dtype: str, relative: float) -> None:
    potential = SumPotential([ORIGINS, wide_zbl(), network()])
    fast, plain = PretrainedMLIP(potential, dtype=dtype, compile=True), PretrainedMLIP(potential, dtype=dtype)
    for atoms in [*STRUCTURES.values(), quartz() * (2, 2, 1)]:
        for name in ("energies", "forces", "stress") if atoms.pbc.all() else ("energies", "forces"):
            ours, theirs = fast.get_property(name, atoms.copy()), plain.get_property(name, atoms.copy())
            # E0s are common to both, and would hide a difference
            offset = ORIGINS.values[potential.types(torch.tensor(atoms.numbers))].numpy() if name == "energies" else 0.0
            scale = np.abs(theirs - offset).max()
            assert ours - offset == pytest.approx(theirs - offset, abs=relative * scale, rel=0)


@needs_compiler
def test_what_is_compiled_is_found_in_the_parts() -> None:
    parts = compiled(SumPotential([ORIGINS, hard_eam(), network()])).potentials()  # type: ignore[attr-defined]
    assert [isinstance(part, CompiledNetwork) for part in parts] == [False, False, True]


@needs_compiler
@pytest.mark.usefixtures("one_compilation")
def test_gradients_of_a_loss_are_the_same() -> None:
    frames = [STRUCTURES["quartz"], STRUCTURES["triclinic"], STRUCTURES["molecule without a cell"]]
    graph = make_batch([make_graph(atoms, 4.0) for atoms in frames])
    plain = network()
    fast = compiled(plain)
    found = []
    for potential in (plain, fast):
        plain.zero_grad()
        output = potential(graph, create_graph=True)
        stress = output[keys.STRESS][:2]
        loss = output[keys.ENERGY].square().sum() + (output[keys.FORCES] - 0.1).square().sum() + stress.square().sum()
        loss.backward()
        found.append({name: value.grad.clone() for name, value in plain.named_parameters() if value.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, theirs in found[0].items():
        assert torch.allclose(found[1][name], theirs, rtol=1e-9, atol=1e-9 * float(theirs.abs().max())), name


@needs_compiler
def test_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    graphs = residual_graphs(load_dataset("silica_mini")[:8], 4.0, ReferenceEnergies({"O": -327.0, "Si": -327.0}))
    weights = []
    for choice in (False, True):
        trained = network()
        trained.set_scales(5.0, 15.0)
        settings = TrainingSettings(epochs=2, batch_size=3, dtype="float64", compile=choice)
        result = Training(trained, graphs[:6], graphs[6:], settings, tmp_path / str(choice)).run()
        weights.append(result.network.state_dict())
    plain, fast = weights
    assert not torch.equal(plain["embedding.weight"], network().state_dict()["embedding.weight"])
    for name, value in plain.items():
        # Four steps of Adam, which divides by the size of gradients, from gradients that agree to 1e-12
        assert torch.allclose(fast[name], value, rtol=1e-8, atol=1e-9), name


@needs_compiler
def test_a_memory_limit_is_kept_without_compiled_code(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = make_graph(quartz(), 4.0)
    potential = CompiledNetwork(network())

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("compiled")

    monkeypatch.setattr(potential, "_function", refuse)
    with pytest.raises(AssertionError, match="compiled"):
        potential(graph)
    potential.network.set_memory_limit(1e-6)
    parts, whole = potential(graph), network()(graph)
    assert torch.allclose(parts[keys.FORCES], whole[keys.FORCES], rtol=0, atol=1e-12)


@needs_compiler
def test_a_pickled_calculator_compiles_again() -> None:
    calculator = PretrainedMLIP(network(), compile=True)
    again = pickle.loads(pickle.dumps(calculator))  # noqa: S301
    assert isinstance(again._evaluate, CompiledNetwork)
    assert again._evaluate.network is again.potential


def test_without_a_compiler_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "no-such-compiler"))
    with pytest.raises(InputError, match=r"no-such-compiler.*install one"):
        PretrainedMLIP(network(), compile=True)
    PretrainedMLIP(hard_eam(), compile=True)  # nothing there to compile
    settings = TrainingSettings(compile=True)
    graphs = [make_graph(quartz(), 4.0)]
    with pytest.raises(InputError, match=r"C\+\+ compiler"):
        Training(network(), graphs, graphs, settings, tmp_path)


CALLS = """
import sys
import torch
from tests.conftest import ELEMENTS, lively, quartz
from pretrain_mlip import build_model, keys
from pretrain_mlip.graphs.graph import edge_vectors, make_graph
from pretrain_mlip.potentials.compiled import compiled
torch.set_num_threads(int(sys.argv[2]))
small = {"cgcnn": {"convolutions": 2}, "m3gnet": {"blocks": 2}, "torchmd_net": {"layers": 2}}
network = lively(build_model(sys.argv[1], ELEMENTS, width=16, **small[sys.argv[1]]))
fast = compiled(network)
graph = make_graph(quartz() * (3, 3, 2), network.cutoff)
given = network.types(graph[keys.ATOMIC_NUMBERS]), graph[keys.EDGE_INDEX], edge_vectors(graph)
for _ in range(5):
    for found, expected in zip(fast.energies_and_gradient(*given), network.energies_and_gradient(*given)):
        assert float((found - expected).abs().max()) < 1e-10  # of some eV and eV/Å, float64
gradients = []
for potential in (fast, network):
    energies, gradient = potential.energies_and_gradient(*given, create_graph=True)
    loss = energies.square().sum() + (gradient - 0.1).square().sum()
    gradients.append(torch.autograd.grad(loss, [p for p in network.parameters()], allow_unused=True))
for found, expected in zip(*gradients):
    assert (found is None) == (expected is None)
    if found is not None:
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9 * float(expected.abs().max()))
print("fine")
"""


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize(("name", "threads"), [(name, 1 if name == "m3gnet" else 2) for name in available_models()])
def test_energies_forces_and_gradients_of_losses(name: str, threads: int) -> None:
    """In a process of its own, which torch 2.13 with its default options makes crash, or compute wrong forces."""
    command = [sys.executable, "-c", CALLS, name, str(threads)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.stdout.strip() == "fine", found.stderr[-800:]


SUMS = """
import torch
import sys
from pretrain_mlip.potentials.compiled import COMPILER_OPTIONS, repair_inductor
if sys.argv[1] == "repaired":
    repair_inductor()
    repair_inductor()
def sums(messages, owners, weights, features, scales):
    start = torch.zeros_like(features)
    summed = torch.scatter_reduce(start, 0, owners[:, None].expand_as(messages), messages.sin(), "sum")
    return scales * weights + features, 2 * summed + features
torch.manual_seed(0)
given = torch.rand(50, 16), torch.randint(0, 11, (50,)), torch.rand(16), torch.rand(11, 16), torch.rand(11, 1)
function = torch.compile(sums, dynamic=True, options=COMPILER_OPTIONS)
for found, expected in zip(function(*given), sums(*given)):
    torch.testing.assert_close(found, expected)
print("fine")
"""


@needs_compiler
def test_sums_are_made_before_they_are_read(tmp_path: Path) -> None:
    """torch 2.13 by itself reads the zeros that the scatter of this function starts from; what it left is not used."""
    own = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    for how in ("as it is", "repaired"):
        found = subprocess.run([sys.executable, "-c", SUMS, how], capture_output=True, text=True, check=False, env=own)
    assert found.stdout.strip() == "fine", found.stderr[-800:]


MAKES_CODE = """
import sys
from torch._inductor.scheduler import SchedulerNode
from tests.conftest import STRUCTURES
from tests.export_potentials import network
from pretrain_mlip.calculators.ase import PretrainedMLIP
from pretrain_mlip.deploy.exports import write_export
from pretrain_mlip.potentials.compiled import repair_inductor
if sys.argv[1] == "package":
    write_export(network("cgcnn", convolutions=1), sys.argv[2] + "/x.pt2", "pt2")
else:
    PretrainedMLIP(network("cgcnn", convolutions=1), compile=True).calculate(STRUCTURES["quartz"])
assert hasattr(SchedulerNode.recompute_size_and_body, "__wrapped__")
repair_inductor()
repaired = SchedulerNode.recompute_size_and_body
print(hasattr(repaired.__wrapped__, "__wrapped__"))
"""


@needs_compiler
@pytest.mark.parametrize("how", ["package", "calculator"])
def test_the_compiler_is_repaired_once_wherever_code_is_made(how: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", MAKES_CODE, how, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.stdout.strip() == "False", done.stderr


@needs_compiler
def test_wrong_code_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    other = network()
    with torch.no_grad():
        other.output.weight.mul_(1.01)
    monkeypatch.setattr("pretrain_mlip.potentials.compiled.trace", lambda _, **options: trace(other, **options))
    with pytest.raises(
        ComputationError, match=r"compile: the code .* \(cgcnn, 1 threads\) is wrong: energies differ by"
    ):
        compiled(network())(make_graph(quartz(), 4.0))


@needs_compiler
def test_code_with_a_wrong_derivative_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = network()

    def with_a_constant(given: Network, **options: bool) -> torch.fx.GraphModule:
        graph = trace(given, **options)
        weights = graph.graph.find_nodes(op="get_attr")
        embedding = next(node for node in weights if getattr(graph, node.target) is plain.embedding.weight)
        with graph.graph.inserting_after(embedding):
            constant = graph.graph.call_function(torch.ops.aten.detach.default, (embedding,))
        embedding.replace_all_uses_with(constant, delete_user_cb=lambda user: user is not constant)
        graph.recompile()
        return graph

    monkeypatch.setattr("pretrain_mlip.potentials.compiled.trace", with_a_constant)
    graph = make_graph(quartz(), 4.0)
    compiled(plain)(graph)  # energies and forces are right
    with pytest.raises(ComputationError, match=r"derivatives of a loss by embedding\.weight differ by"):
        compiled(plain)(graph, create_graph=True)
