"""The pairs of a graph, and the one step that all message passing is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import compress
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Message = Callable[..., tuple[tuple[Tensor, ...], tuple[Tensor, ...]]]


@dataclass(frozen=True)
class Edges:
    """All pairs within the cutoff, both edges of each.

    Attributes:
        neighbour: (E,) int64, the atom that an edge comes from.
        centre: (E,) int64, the atom that it belongs to; memory is used best where edges are sorted by it.
        vectors: (E, 3) Å, from the centre to the neighbour, in the precision of the network.
        atoms: number of atoms.
        chunk: number of edges that are worked on at a time, where only first derivatives are wanted and memory is
            short; None computes all at once.
    """

    neighbour: Tensor
    centre: Tensor
    vectors: Tensor
    atoms: int
    chunk: int | None = None

    @cached_property
    def distances(self) -> Tensor:
        """(E,) Å."""
        return torch.linalg.vector_norm(self.vectors, dim=1)

    def total(self, values: Tensor) -> Tensor:
        """(N, ...) sums of values (E, ...) over the edges of each centre."""
        return values.new_zeros((self.atoms, *values.shape[1:])).index_add(0, self.centre, values)

    def exchange(
        self,
        message: Message,
        on_edges: Sequence[Tensor] = (),
        of_centres: Sequence[Tensor] = (),
        of_neighbours: Sequence[Tensor] = (),
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Compute on every edge, and sum over the edges of each centre.

        Args:
            message: takes what the three following arguments list, as rows of the edges at hand, and gives features of
                these edges, to be kept, and messages to their centres, to be summed.
            on_edges: (E, ...) features of edges.
            of_centres: (N, ...) features of atoms, wanted at the centre.
            of_neighbours: (N, ...) features of atoms, wanted at the neighbour.

        Returns:
            Features of edges (E, ...), and sums of messages (N, ...).
        """
        if self.chunk is None or self.centre.shape[0] <= self.chunk:
            kept, messages = message(
                *on_edges,
                *(nodes.index_select(0, self.centre) for nodes in of_centres),
                *(nodes.index_select(0, self.neighbour) for nodes in of_neighbours),
            )
            return kept, tuple(self.total(values) for values in messages)
        step = _Step(message, self, self.chunk, len(on_edges), len(of_centres))
        results = _InChunks.apply(step, *on_edges, *of_centres, *of_neighbours)
        return results[: step.kept], results[step.kept :]


class _Step:
    """One exchange in chunks: what goes into a chunk, and what comes out of it."""

    def __init__(self, message: Message, edges: Edges, chunk: int, on_edges: int, of_centres: int) -> None:
        self.message, self.edges, self.chunk = message, edges, chunk
        self.on_edges, self.before_neighbours = on_edges, on_edges + of_centres
        self.kept = 0  # number of edge features that come out, known after the first chunk

    def pieces(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Rows of the edges, their neighbours and centres."""
        for start in range(0, self.edges.centre.shape[0], self.chunk):
            rows = slice(start, start + self.chunk)
            yield rows, self.edges.neighbour[rows], self.edges.centre[rows]

    def inputs(
        self, tensors: Sequence[Tensor], piece: tuple[slice, Tensor, Tensor], wanted: Sequence[bool]
    ) -> list[Tensor]:
        """Rows of a chunk, as leaves of a graph of their own where their derivatives are wanted."""
        rows, neighbour, centre = piece
        found = [values[rows] for values in tensors[: self.on_edges]]
        found += [nodes.index_select(0, centre) for nodes in tensors[self.on_edges : self.before_neighbours]]
        found += [nodes.index_select(0, neighbour) for nodes in tensors[self.before_neighbours :]]
        return [values.detach().requires_grad_(needed) for values, needed in zip(found, wanted, strict=True)]

    def compute(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        kept, messages = self.message(*inputs)
        self.kept = len(kept)
        return (*kept, *messages)


class _InChunks(torch.autograd.Function):
    """A step that stores only what goes into it: intermediate results of a chunk are computed again to be derived.

    Derivatives are by the inputs only, not by weights, and of first order: enough for forces, not for training on them.
    """

    @staticmethod
    def forward(ctx: Any, step: _Step, *tensors: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        results: list[Tensor] = []
        for piece in step.pieces():
            rows, _, centre = piece
            outputs = step.compute(step.inputs(tensors, piece, [False] * len(tensors)))
            if not results:
                length = [step.edges.centre.shape[0]] * step.kept + [step.edges.atoms] * (len(outputs) - step.kept)
                results = [v.new_zeros((n, *v.shape[1:])) for n, v in zip(length, outputs, strict=True)]
            for number, values in enumerate(outputs):
                if number < step.kept:
                    results[number][rows] = values
                else:
                    results[number].index_add_(0, centre, values)
        ctx.step = step
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        return tuple(results)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        step, tensors, wanted = ctx.step, ctx.saved_tensors, ctx.needs_input_grad[1:]
        totals = [torch.zeros_like(values) if needed else None for values, needed in zip(tensors, wanted, strict=True)]
        known = [gradient is not None for gradient in gradients]
        for piece in step.pieces():
            rows, neighbour, centre = piece
            inputs = step.inputs(tensors, piece, wanted)
            with torch.enable_grad():
                outputs = step.compute(inputs)
            of_outputs = [
                gradient[rows] if place < step.kept else gradient.index_select(0, centre)
                for place, gradient in enumerate(gradients)
                if gradient is not None
            ]
            found = torch.autograd.grad(
                list(compress(outputs, known)), list(compress(inputs, wanted)), of_outputs, allow_unused=True
            )
            places = compress(range(len(totals)), wanted)
            for place, total, gradient in zip(places, compress(totals, wanted), found, strict=True):
                if gradient is None or total is None:
                    continue
                if place < step.on_edges:
                    total[rows] = gradient
                else:
                    total.index_add_(0, centre if place < step.before_neighbours else neighbour, gradient)
        return (None, *totals)
