"""What a training needs to know of its graphs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from torch_geometric.data import Data

from pretrain_mlip import keys

_CONTENT = (keys.ATOMIC_NUMBERS, keys.POSITIONS, keys.CELL, *keys.LABELS, keys.CONFIG_WEIGHT)


def edge_counts(graphs: Sequence[Data]) -> np.ndarray:
    """Number of edges of each graph."""
    return np.array([graph[keys.EDGE_INDEX].shape[1] for graph in graphs], dtype=np.int64)


def fingerprint(lists: Iterable[Sequence[Data]]) -> str:
    """SHA-256 of structures and labels of several lists of graphs."""
    digest = hashlib.sha256()
    for graphs in lists:
        digest.update(f"{len(graphs)} graphs".encode())
        for graph in graphs:
            for name in _CONTENT:
                digest.update(np.ascontiguousarray(graph[name].numpy()).tobytes())
    return digest.hexdigest()
