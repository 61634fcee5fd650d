"""Networks whose energies and gradients are compiled by torch: the same numbers, with less time between operations.

The graph of a network (``tracing``) goes to ``torch.compile``, once for all numbers of atoms and edges. Forces are part
of it, so that a training differentiates compiled code as well. What has few operations, or analytic derivatives of its
own as the EAM has, stays as it is.
"""

from __future__ import annotations

import functools
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.potentials.base import Composition, Potential, Products
from pretrain_mlip.potentials.networks.base import Network, reduced_precision
from pretrain_mlip.potentials.tracing import example_inputs, trace

COMPILER_OPTIONS: dict[str, Any] = {
    # Vectorised ends of loops write past the end of arrays where several threads share a loop: torch 2.13 corrupts its
    # memory, or crashes, with M3GNet on two threads. Compiled code for processors only; others ignore it.
    "cpp.enable_loop_tail_vec": False,
    # Operations after which a result is stored: with the 30 of torch envelopes are computed again for every feature of
    # an edge, M3GNet is 6 % slower, the transformer 2 %.
    "realize_opcount_threshold": 10,
}
REPAIRED = "pretrain_mlip.repair_inductor"  # part of the keys of torch's cache
EXAMPLE = 101  # atoms with 10,100 edges: for sizes like these the compiler decides which loops threads share
# Rounding, of sums in another order, relative to the largest number
TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-3}
REDUCED = 0.1  # where products of matrices are made in a lower precision
SMALLEST = 2  # atoms and edges: torch compiles sizes 0 and 1 as constants


def compiled(potential: Potential) -> Potential:
    """The potential with its networks compiled at their first use; weights are shared, not copied.

    Raises:
        InputError: a network is there, but no C++ compiler to compile it for the CPU.
    """
    if isinstance(potential, Composition):
        return type(potential)([compiled(part) for part in potential.potentials()])
    return CompiledNetwork(potential) if isinstance(potential, Network) else potential


def uncompiled(potential: Potential) -> Potential:
    """The potential itself, with the same weights; what files hold."""
    if isinstance(potential, Composition):
        parts = [uncompiled(part) for part in potential.potentials()]
        same = all(new is old for new, old in zip(parts, potential.potentials(), strict=True))
        return potential if same else type(potential)(parts)
    return potential.network if isinstance(potential, CompiledNetwork) else potential


class CompiledNetwork(Potential):
    """A network, computed by compiled code.

    Graphs with less than two atoms or edges, and those that a memory limit divides, are computed without it.
    The code is made again when the precision or the device of the network has changed.
    """

    def __init__(self, network: Network) -> None:
        """Wrap a network.

        Raises:
            InputError: the network is on the CPU, and no C++ compiler is found.
        """
        super().__init__(network.elements, network.cutoff)
        self.kind = network.kind
        self.network = network
        self.fades = network.fades
        self._code: dict[tuple[Any, ...], Callable[..., tuple[Tensor, Tensor]]] = {}
        if network.energy_scale.device.type == "cpu":
            find_compiler()

    def config(self) -> dict[str, Any]:
        return self.network.config()

    def set_dtype(self, dtype: torch.dtype) -> None:
        self.network.set_dtype(dtype)

    def set_memory_limit(self, limit: float) -> None:
        self.network.set_memory_limit(limit)

    def set_products(self, products: Products) -> None:
        self.network.set_products(products)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_code": {}}

    def atomic_energies(self, types: Tensor, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        """Not compiled: it is what energies without forces are computed with."""
        return self.network.atomic_energies(types, edge_index, edge_vectors)

    def energies_and_gradient(
        self, types: Tensor, edge_index: Tensor, edge_vectors: Tensor, *, create_graph: bool = False
    ) -> tuple[Tensor, Tensor]:
        atoms, edges = types.shape[0], edge_index.shape[1]
        if min(atoms, edges) < SMALLEST or self.network.chunk(edges) is not None:
            return self.network.energies_and_gradient(types, edge_index, edge_vectors, create_graph=create_graph)
        with torch.set_grad_enabled(create_graph):
            # Other strides would be other code
            given = types, edge_index.contiguous(), edge_vectors.detach().contiguous()
            with reduced_precision(self.network.products, edge_vectors.device):
                return self._function(differentiable=create_graph)(*given)

    def _function(self, *, differentiable: bool) -> Callable[..., tuple[Tensor, Tensor]]:
        scale = self.network.energy_scale
        # The code holds tensors: a change of precision or device, and back, puts others in their place
        held = tuple(map(id, (*self.network.parameters(), *self.network.buffers())))
        key = (scale.dtype, scale.device, differentiable, self.network.products, held)
        if key not in self._code:
            graph = trace(self.network, differentiable=differentiable, threads=torch.get_num_threads())
            repair_inductor()
            function = torch.compile(graph, dynamic=True, options=COMPILER_OPTIONS)
            self._code = {known: code for known, code in self._code.items() if known[-1] == held}
            if found := self._fault(function, differentiable=differentiable):
                raise ComputationError(
                    f"compile: the code that torch {torch.__version__} makes of this network ({self.kind}, "
                    f"{torch.get_num_threads()} threads) is wrong: {found}; do without compile, or use another number "
                    "of threads"
                )
            self._code[key] = function
        return self._code[key]

    def _fault(self, function: Callable[..., tuple[Tensor, Tensor]], *, differentiable: bool) -> str:
        """What is wrong with compiled code; empty where it gives the numbers of the network."""
        # First called with an example in which no two sizes are equal by chance, whatever comes first
        example = example_inputs(self.network, EXAMPLE)
        found = function(*example)
        expected = self.network.energies_and_gradient(*example, create_graph=differentiable)
        tolerance = TOLERANCES[self.network.energy_scale.dtype] if self.network.products == "full" else REDUCED
        fault = difference(found, expected, tolerance)
        weights = {name: weight for name, weight in self.network.named_parameters() if weight.requires_grad}
        if fault or not differentiable or not weights:
            return fault
        ours, theirs = (_loss_gradients(outputs, list(weights.values())) for outputs in (expected, found))
        least = 1e-3 * max(map(_largest, ours))  # what is smaller is a difference of larger numbers
        for name, right, given in zip(weights, ours, theirs, strict=True):
            allowed = tolerance * max(least, _largest(right))
            if not _largest(given - right) <= allowed:  # nan is a difference too
                return (
                    f"derivatives of a loss by {name} differ by {_largest(given - right):.1e} of {_largest(right):.1e}"
                )
        return ""


def _loss_gradients(outputs: tuple[Tensor, Tensor], weights: list[nn.Parameter]) -> list[Tensor]:
    """Derivatives of a loss on energies and forces by weights."""
    energies, gradient = outputs
    return list(
        torch.autograd.grad(
            energies.square().sum() + (gradient - 0.1).square().sum(),
            weights,
            allow_unused=True,
            materialize_grads=True,
        )
    )


def difference(found: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float) -> str:
    """How code differs from what it was made of; empty where it does not.

    Args:
        found: atomic energies (N,) in eV and gradients (E, 3) in eV/Å.
        expected: likewise.
        tolerance: relative to the largest value, or to 1 eV and 1 eV/Å where that is more.
    """
    for name, ours, theirs in zip(("energies", "gradients"), expected, found, strict=True):
        allowed = tolerance * max(1.0, _largest(ours))
        if not _largest(theirs.detach().to(torch.float64) - ours.detach()) <= allowed:  # nan is a difference too
            return f"{name} differ by {_largest(theirs - ours):.1e} where {allowed:.1e} is allowed"
    return ""


def _largest(values: Tensor) -> float:
    return float(values.detach().abs().max()) if values.numel() else 0.0


def repair_inductor() -> None:
    """Keep torch's compiler from reading sums before they are made; to be called before anything is compiled.

    Loops over the same elements, one of them flattened, are fused after the flat one has been divided anew. Where it
    reads what a scatter has added to, torch 2.13 forgets there that it has to come after the scatter
    (``SchedulerNode.recompute_size_and_body`` renames what is mutated only beside other dependencies), and may put it
    before: wrong derivatives of M3GNet and the transformer, and of losses on them. Done once in a process, and without
    effect on what torch does rightly. Code that was made without it stays in torch's cache on disk, where it is not
    looked for afterwards.
    """
    from torch._inductor.scheduler import SchedulerNode

    original = getattr(SchedulerNode, "recompute_size_and_body", None)
    if original is None or hasattr(original, "__wrapped__"):  # another torch, or repaired before
        return

    @functools.wraps(original)
    def recompute_size_and_body(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.set_read_writes(self.read_writes.rename(self.mutation_renames))

    SchedulerNode.recompute_size_and_body = recompute_size_and_body
    if hasattr(torch.compiler.config, "cache_key_tag"):
        torch.compiler.config.cache_key_tag += REPAIRED


def find_compiler() -> None:
    """Look for a C++ compiler as inductor does.

    Raises:
        InputError: there is none.
    """
    usual = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    name = os.environ.get("CXX", usual)
    if shutil.which(name) is None:
        raise InputError(
            f"compile needs a C++ compiler, and '{name}' is not found: install one (g++ or clang++), name one in "
            "the environment variable CXX, or do without compile"
        )
