"""Weights that need not be stored: both a reference program and our tests draw them from the names and shapes."""

from collections.abc import Mapping, Sequence

import numpy as np


def drawn_weights(shapes: Mapping[str, Sequence[int]], seed: int, gain: float = 1.0) -> dict[str, np.ndarray]:
    """float32 values for every name, drawn in the order of the names.

    Matrices have entries of variance gain² / columns, embeddings of 1, scales of normalisations near 1, biases near 0.
    """
    generator = np.random.default_rng(seed)
    weights = {}
    for name in sorted(shapes):
        values = generator.standard_normal(tuple(shapes[name]))
        if len(shapes[name]) > 1 and "embedding.weight" not in name:
            values *= gain / np.sqrt(shapes[name][1])
        elif len(shapes[name]) == 1:
            values = 0.1 * values + float("norm.weight" in name)
        weights[name] = values.astype(np.float32)
    return weights
