"""Many graphs that need not be in memory: what is known of them without reading them, lists of both kinds, weights."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from copy import copy
from typing import overload

import numpy as np
from torch_geometric.data import Data

from pretrain_mlip import keys
from pretrain_mlip.graphs.records import digest


class Graphs(Sequence[Data]):
    """Graphs that are made when they are asked for, each time anew.

    Attributes:
        edges: (n,) int64, edges of each.
        digests: (n, 16) bytes, see ``digest``.
        kinds: the config_types that occur.
    """

    edges: np.ndarray
    digests: np.ndarray
    kinds: frozenset[str]

    @abstractmethod
    def read(self, index: int) -> Data:
        """The graph at a place from 0 on."""

    def __len__(self) -> int:
        return len(self.edges)

    @overload
    def __getitem__(self, index: int) -> Data: ...
    @overload
    def __getitem__(self, index: slice) -> list[Data]: ...
    def __getitem__(self, index: int | slice) -> Data | list[Data]:
        if isinstance(index, slice):
            return [self.read(place) for place in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"graph {index} of {len(self)}")
        return self.read(index % len(self))


class Joined(Graphs):
    """Several sequences, one after the other."""

    def __init__(self, *parts: Sequence[Data]) -> None:
        self.parts = parts
        self.starts = np.cumsum([0, *(len(part) for part in parts)])
        self.edges = np.concatenate([edge_counts(part) for part in parts])
        self.digests = np.concatenate([digests(part) for part in parts])
        self.kinds = frozenset().union(*(kinds(part) for part in parts))

    def read(self, index: int) -> Data:
        part = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self.parts[part][index - int(self.starts[part])]


class From(Graphs):
    """Graphs from a place on."""

    def __init__(self, graphs: Sequence[Data], start: int) -> None:
        self.graphs, self.start = graphs, start
        self.edges, self.digests, self.kinds = edge_counts(graphs)[start:], digests(graphs)[start:], kinds(graphs)

    def read(self, index: int) -> Data:
        return self.graphs[self.start + index]


class Weighted(Graphs):
    """Graphs that count for more or less."""

    def __init__(self, graphs: Sequence[Data], weight: float) -> None:
        self.graphs, self.weight = graphs, weight
        self.edges, self.kinds = edge_counts(graphs), kinds(graphs)
        key = repr(weight).encode()[:64]
        self.digests = _rows(hashlib.blake2b(row, digest_size=16, key=key).digest() for row in digests(graphs))

    def read(self, index: int) -> Data:
        graph = copy(self.graphs[index])  # shares all other tensors
        graph[keys.CONFIG_WEIGHT] = self.weight * graph[keys.CONFIG_WEIGHT]
        return graph


def edge_counts(graphs: Sequence[Data]) -> np.ndarray:
    """(n,) int64, number of edges of each graph."""
    if isinstance(graphs, Graphs):
        return graphs.edges
    return np.array([graph[keys.EDGE_INDEX].shape[1] for graph in graphs], dtype=np.int64)


def digests(graphs: Sequence[Data]) -> np.ndarray:
    """(n, 16) bytes that tell the content of each graph from others."""
    return graphs.digests if isinstance(graphs, Graphs) else _rows(digest(graph) for graph in graphs)


def kinds(graphs: Sequence[Data]) -> frozenset[str]:
    """The config_types that occur."""
    return graphs.kinds if isinstance(graphs, Graphs) else frozenset(graph[keys.CONFIG_TYPE] for graph in graphs)


def fingerprint(lists: Sequence[Sequence[Data]]) -> str:
    """A hash of structures, labels and weights of several sequences; the same wherever they are kept."""
    found = hashlib.sha256()
    for graphs in lists:
        found.update(f"{len(graphs)} graphs".encode())
        found.update(digests(graphs).tobytes())
    return found.hexdigest()


def _rows(found: Iterable[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(found), np.uint8).reshape(-1, 16)
