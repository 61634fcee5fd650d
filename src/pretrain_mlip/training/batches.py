"""Which structures make a gradient step: an order that depends on the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

from pretrain_mlip.errors import InputError


@dataclass(frozen=True, slots=True)
class Place:
    """A structure of a batch; what only fills up the share of a process does not count."""

    index: int
    counts: bool = True


class Batches(Sampler[list[Place]]):
    """Batches of the share of one process, from any batch of an epoch on.

    All processes draw the same batches and each takes every n-th structure of them, so that a gradient step does not
    depend on the number of processes. Where a batch has fewer structures than there are processes, those without one
    compute another that does not count: every process has to take part in the step.

    Attributes:
        epoch: which is drawn next.
        start: number of the batch that it starts with; those before were seen before an interruption.
    """

    def __init__(
        self,
        edges: np.ndarray,
        batch_size: int,
        seed: int,
        *,
        max_edges: int | None = None,
        replayed: int = 0,
        replay_size: int = 0,
        name_of: Callable[[int], str] = str,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        """Describe the structures; indices from ``len(edges) - replayed`` on are those that are replayed.

        Args:
            edges: of each structure.
            batch_size: structures of a batch, of all processes together, replayed ones not counted.
            seed: of the order.
            max_edges: a batch has not more edges, replayed ones included.
            replayed: number of structures that are drawn from, with an order of their own, to join every batch.
            replay_size: how many join a batch.
            name_of: of a structure, for messages.
            rank: of this process.
            processes: their number.

        Raises:
            InputError: a structure alone has too many edges.
        """
        self.edges, self.batch_size, self.seed, self.max_edges = edges, batch_size, seed, max_edges
        self.size, self.replay_size = len(edges) - replayed, replay_size if replayed else 0
        self.replayed = np.arange(self.size, len(edges))
        self.rank, self.processes = rank, processes
        self.epoch = self.start = 0
        beside = int(np.sort(self.edges[self.size :])[::-1][: self.replay_size].sum())
        if max_edges is not None and self.edges[: self.size].max(initial=0) + beside > max_edges:
            worst = int(self.edges[: self.size].argmax())
            replayed_too = f" beside up to {beside} of replayed structures" if beside else ""
            raise InputError(
                f"{name_of(worst)}: {self.edges[worst]} edges{replayed_too}, more than max_edges = {max_edges} allows "
                "in a batch; raise it, or leave the structure out"
            )

    def __len__(self) -> int:
        return len(self.plan(self.epoch)) - self.start

    def __iter__(self) -> Iterator[list[Place]]:
        for batch in self.plan(self.epoch)[self.start :]:
            share = [Place(index) for index in batch[self.rank :: self.processes]]
            yield share or [Place(batch[0], counts=False)]

    def plan(self, epoch: int) -> list[list[int]]:
        """The batches of an epoch, of all processes together."""
        batches: list[list[int]] = []
        replay = self._replay(epoch)
        current: list[int] = []
        room = 0
        for index in np.random.default_rng([self.seed, epoch]).permutation(self.size).tolist():
            needed = int(self.edges[index])
            if not current or len(current) - self.replay_size >= self.batch_size or needed > room:
                current = [next(replay) for _ in range(self.replay_size)]
                room = self._room(current)
                batches.append(current)
            current.append(index)
            room -= needed
        return batches

    def _room(self, batch: Sequence[int]) -> int:
        limit = np.iinfo(np.int64).max if self.max_edges is None else self.max_edges
        return int(limit - self.edges[list(batch)].sum())

    def _replay(self, epoch: int) -> Iterator[int]:
        """Replayed structures without end, all before any comes again."""
        rng = np.random.default_rng([self.seed, epoch, 1])
        while True:
            yield from rng.permutation(self.replayed).tolist()


class InOrder(Sampler[list[Place]]):
    """Batches of all structures as they come; every process has batches of its own."""

    def __init__(
        self, edges: np.ndarray, batch_size: int, max_edges: int | None = None, *, rank: int = 0, processes: int = 1
    ) -> None:
        """Divide structures of so many edges; one that alone has more than ``max_edges`` is a batch of its own."""
        batches: list[list[Place]] = []
        total = 0
        for index, needed in enumerate(edges.tolist()):
            full = not batches or len(batches[-1]) == batch_size
            if full or (max_edges is not None and total + needed > max_edges):
                batches.append([])
                total = 0
            batches[-1].append(Place(index))
            total += needed
        self.batches = batches[rank::processes]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Place]]:
        return iter(self.batches)
