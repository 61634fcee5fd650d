"""A potential as one plain graph of tensor operations: atomic energies and their derivative, without autograd.

Compilers and exporters of torch want a function of tensors that takes no derivatives itself. Here a potential runs once
on a small example while torch writes down every operation, those of automatic differentiation included; numbers of
atoms and edges stay symbols. What comes out is (types (N,), edge_index (2, E), edge_vectors (E, 3) float64) -> (atomic
energies (N,) in eV, dE/d edge_vectors (E, 3) in eV/Å), a ``torch.fx.GraphModule`` that holds the parameters and buffers
of the potential themselves, not copies: it follows a training, and can be made so that a training differentiates it.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from pretrain_mlip.potentials.base import Potential
from pretrain_mlip.potentials.ghosts import NAMESPACE, ghosts

aten = torch.ops.aten
LARGEST = 2**40  # atoms or edges of an exported graph; any bound that nobody meets


def trace(
    potential: Potential, *, differentiable: bool = False, with_ghosts: bool = False, threads: int = 1
) -> fx.GraphModule:
    """The graph of a potential, for two atoms or more and two edges or more (torch takes sizes 0 and 1 for constants).

    It is made for the precision and the device that the potential has now. Parts of a sum act within their own cutoffs.
    Memory limits of networks are not in it: all edges are computed at once.

    Args:
        potential: any potential of ours, whose parameters and buffers become those of the graph.
        differentiable: state derivatives in operations that have derivatives themselves, for losses on forces. Without,
            some are stated in one operation that has none; call the graph under ``torch.no_grad`` then.
        with_ghosts: take a fourth input, the number of atoms () int64 whose energies count; those behind are ghosts,
            whose features are asked for (see ``ghosts``).
        threads: that inductor will compile the graph for.
    """
    example = example_inputs(potential)
    # Once without tracing, so that what a potential keeps for later, the tables of an EAM, holds numbers
    potential.energies_and_gradient(*example)

    def of_all(types: Tensor, edge_index: Tensor, edge_vectors: Tensor) -> tuple[Tensor, Tensor]:
        return of_own(types, edge_index, edge_vectors, None)

    def of_own(types: Tensor, edge_index: Tensor, edge_vectors: Tensor, own: Tensor | None) -> tuple[Tensor, Tensor]:
        with torch.enable_grad(), ghosts() if with_ghosts else nullcontext():
            vectors = edge_vectors.detach().requires_grad_(True)  # noqa: FBT003
            energies = potential.atomic_energies(types, edge_index, vectors)
            if own is not None:
                energies = energies * (torch.arange(types.shape[0], device=types.device) < own)
            gradient = None
            if energies.requires_grad:
                (gradient,) = torch.autograd.grad(
                    energies.sum(), vectors, create_graph=differentiable, allow_unused=True
                )
        if with_ghosts:  # for programs that count on it
            energies = energies.to(torch.float64)
        return energies, torch.zeros_like(edge_vectors) if gradient is None else gradient

    # Weights are constants of the graph: `_allow_non_fake_inputs` lets them stay what they are while sizes are symbols
    decompositions: dict[Any, Any] = {
        aten.addmm.default: _product_and_sum,
        aten.index_add.default: _scattered_sum if threads == 1 else _opaque_sum,
    }
    if differentiable and threads > 1:
        decompositions[aten.index_select.default] = _opaque_rows
    tracer = make_fx(
        of_own if with_ghosts else of_all,
        decomposition_table=decompositions,
        tracing_mode="symbolic",
        _allow_non_fake_inputs=True,
    )
    graph = tracer(*example, torch.tensor(example[0].shape[0])) if with_ghosts else tracer(*example)
    _remove_detach(graph)
    return graph


def example_inputs(potential: Potential, atoms: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Types, edges and vectors (Å) of a cluster, on the device of the potential, to trace and compile with.

    All pairs are there, so that numbers of atoms and edges differ from each other and from those of features: torch
    takes sizes that are equal in the example to be equal always.
    """
    device = next(potential.buffers()).device
    reach = max(potential.cutoff, 1.0)
    neighbour, centre = (~torch.eye(atoms, dtype=torch.bool)).nonzero().T
    angles = torch.arange(atoms, dtype=torch.float64)
    places = 0.3 * reach * torch.stack([angles.cos(), angles.sin(), 0.1 * angles], dim=1)  # on a helix
    types = torch.arange(atoms) % len(potential.elements)
    vectors = places[neighbour] - places[centre]
    return types.to(device), torch.stack([neighbour, centre]).to(device), vectors.to(device)


def export(graph: fx.GraphModule, potential: Potential) -> torch.export.ExportedProgram:
    """A traced graph as a ``torch.export`` program with any numbers of atoms and edges from two on.

    Args:
        graph: from ``trace``.
        potential: that it was traced from.
    """
    atoms, edges = (torch.export.Dim(name, min=2, max=LARGEST) for name in ("atoms", "edges"))
    example, shapes = example_inputs(potential), ({0: atoms}, {1: edges}, {0: edges})
    if len(graph.graph.find_nodes(op="placeholder")) > len(example):  # with ghosts
        example, shapes = (*example, torch.tensor(example[0].shape[0])), (*shapes, None)
    with torch.no_grad():
        return torch.export.export(graph, example, dynamic_shapes=shapes, strict=False)


def script(graph: fx.GraphModule) -> torch.jit.ScriptModule:
    """A traced graph as TorchScript, with a copy of the weights, frozen.

    TorchScript chooses overloads of operators itself and knows neither ``sym_size`` nor devices as literals, so that
    these are written in its own words first.
    """
    operations = fx.Graph()
    operations.output(operations.graph_copy(graph.graph, {}))
    for node in operations.nodes:
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        size = node.target is aten.sym_size.int
        node.target = aten.size if size else node.target.overloadpacket
        node.kwargs = {
            name: str(value) if isinstance(value, torch.device) else value for name, value in node.kwargs.items()
        }
    return torch.jit.freeze(torch.jit.script(fx.GraphModule(graph, operations).eval()))


def _product_and_sum(bias: Tensor, x: Tensor, weight: Tensor, *, beta: float = 1.0, alpha: float = 1.0) -> Tensor:
    """``addmm``, which compilers cannot fuse with what follows, and TorchScript mistakes the shapes of now and then."""
    return beta * bias + alpha * (x @ weight) if (beta, alpha) != (1.0, 1.0) else x @ weight + bias


def _scattered_sum(total: Tensor, dim: int, index: Tensor, values: Tensor) -> Tensor:
    """``index_add`` over rows for one thread, which inductor fuses with what makes the values."""
    rows = index.view(-1, *[1] * (values.dim() - 1)).expand_as(values)
    return aten.scatter_reduce.two(total, dim, rows, values, "sum")


def _opaque_sum(total: Tensor, dim: int, index: Tensor, values: Tensor) -> Tensor:
    """``index_add`` over rows for several threads: an operator of ours, which inductor (torch 2.13) only calls.

    What it makes of sums itself is wrong on several threads: some of what uses a sum runs before the sum is complete.
    Here each thread has rows of its own.
    """
    _check_rows(dim)
    return torch.ops.pretrain_mlip.add_rows(total, index, values)  # type: ignore[no-any-return]


def _opaque_rows(values: Tensor, dim: int, index: Tensor) -> Tensor:
    """``index_select`` over rows for several threads, where its derivative, which is such a sum, will be wanted."""
    _check_rows(dim)
    return torch.ops.pretrain_mlip.take_rows(values, index)  # type: ignore[no-any-return]


def _check_rows(dim: int) -> None:
    if dim != 0:
        raise NotImplementedError(f"networks gather and sum over rows, not over dimension {dim}")


def _register() -> torch.library.Library:
    """Make the operators known, unless the pair style in the same process has done so."""
    library = torch.library.Library(NAMESPACE, "FRAGMENT")
    known = getattr(torch.ops, NAMESPACE)
    for schema in (
        "add_rows(Tensor total, Tensor index, Tensor values) -> Tensor",
        "take_rows(Tensor values, Tensor index) -> Tensor",
    ):
        if not hasattr(known, schema.partition("(")[0]):
            library.define(schema)
    library.impl(
        "add_rows", lambda total, index, values: total.index_add(0, index, values), "CompositeExplicitAutograd"
    )
    library.impl("take_rows", lambda values, index: values.index_select(0, index), "CompositeExplicitAutograd")
    torch.library.register_fake(f"{NAMESPACE}::add_rows", lambda total, *_: torch.empty_like(total), lib=library)
    torch.library.register_fake(
        f"{NAMESPACE}::take_rows",
        lambda values, index: values.new_empty((index.shape[0], *values.shape[1:])),
        lib=library,
    )
    torch.library.register_autograd(f"{NAMESPACE}::add_rows", _add_rows_backward, setup_context=_keep, lib=library)
    torch.library.register_autograd(f"{NAMESPACE}::take_rows", _take_rows_backward, setup_context=_keep, lib=library)
    return library


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ARG001
    ctx.save_for_backward(inputs[1])
    ctx.shape = inputs[0].shape


def _add_rows_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor]:
    (index,) = ctx.saved_tensors
    return gradient, None, torch.ops.pretrain_mlip.take_rows(gradient, index)


def _take_rows_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
    (index,) = ctx.saved_tensors
    return torch.ops.pretrain_mlip.add_rows(gradient.new_zeros(ctx.shape), index, gradient), None


_LIBRARY = _register()


def _remove_detach(graph: fx.GraphModule) -> None:
    """Take out what autograd puts between an operation and the output that it keeps for its own derivative.

    For the values it changes nothing, but a loss on the gradient would not be differentiated through it.
    """
    for node in graph.graph.nodes:
        if node.target is aten.detach.default:
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()
