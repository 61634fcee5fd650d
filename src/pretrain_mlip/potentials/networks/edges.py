"""The pairs of a graph, and the one step that all message passing is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Message = Callable[..., tuple[tuple[Tensor, ...], tuple[Tensor, ...]]]


@dataclass(frozen=True)
class Edges:
    """All pairs within the cutoff, both edges of each.

    Attributes:
        neighbour: (E,) int64, the atom that an edge comes from.
        centre: (E,) int64, the atom that it belongs to; memory is used best where edges are sorted by it.
        vectors: (E, 3) Å, from the centre to the neighbour, in the precision of the network.
        atoms: number of atoms.
        parts: one after the other, so many parts of the edges are worked on, to need less memory.
    """

    neighbour: Tensor
    centre: Tensor
    vectors: Tensor
    atoms: int
    parts: int = 1

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

        def compute(
            neighbour: Tensor, centre: Tensor, *features: Tensor
        ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
            return message(
                *features,
                *(nodes.index_select(0, centre) for nodes in of_centres),
                *(nodes.index_select(0, neighbour) for nodes in of_neighbours),
            )

        if self.parts == 1:
            kept, messages = compute(self.neighbour, self.centre, *on_edges)
            return kept, tuple(self.total(values) for values in messages)
        size = -(-self.centre.shape[0] // self.parts)
        pieces: list[tuple[Tensor, ...]] = []
        sums: tuple[Tensor, ...] = ()
        for part in zip(*(values.split(size) for values in (self.neighbour, self.centre, *on_edges)), strict=True):
            # What a part computes is computed again when gradients are wanted: only its input and output are stored
            kept, messages = checkpoint(compute, *part, use_reentrant=False, preserve_rng_state=False)
            pieces.append(kept)
            sums = sums or tuple(values.new_zeros((self.atoms, *values.shape[1:])) for values in messages)
            sums = tuple(total.index_add(0, part[1], values) for total, values in zip(sums, messages, strict=True))
        return tuple(torch.cat(column) for column in zip(*pieces, strict=True)), sums
