"""Predictions for many structures at once: labels for pretraining, error tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from ase import Atoms
from torch_geometric.data import Data

from pretrain_mlip import keys
from pretrain_mlip.console import track
from pretrain_mlip.errors import InputError
from pretrain_mlip.graphs.graph import device_named, make_batch, make_graph
from pretrain_mlip.potentials.base import Potential, dtype_named
from pretrain_mlip.structures.io import Labels, name_of, set_labels

EDGES_PER_BATCH = 100_000  # enough to hide the overhead of a call, small enough for caches and memory


def predict(
    potential: Potential,
    frames: Sequence[Atoms],
    *,
    device: str = "cpu",
    dtype: str | None = None,
    first: int = 0,
    description: str = "predicting",
) -> list[Labels]:
    """Energy (eV), forces (eV/Å) and stress (eV/Å³; None where a structure is not periodic in three directions).

    Args:
        potential: any potential of ours; moved to the device, its weights are left as they are.
        frames: structures.
        device: "cpu", "cuda" or "auto".
        dtype: "float32" or "float64" for networks; None keeps theirs.
        first: number of the first structure, for messages.
        description: for the progress bar.

    Raises:
        InputError: an element is not supported, or positions or a cell are not finite; names the structure.
    """
    place = device_named(device)
    potential = potential.to(place)
    if dtype is not None:
        potential.set_dtype(dtype_named(dtype))
    labels: list[Labels] = []
    for graphs in _batches(potential, frames, first, description):
        batch = make_batch(graphs).to(str(place))
        with torch.no_grad():
            output = {name: value.detach().cpu().numpy() for name, value in potential(batch).items()}
        start = 0
        for number, graph in enumerate(graphs):
            end = start + int(graph.num_nodes or 0)
            stress = output[keys.STRESS][number]
            labels.append(
                Labels(
                    float(output[keys.ENERGY][number]),
                    output[keys.FORCES][start:end],
                    stress if np.isfinite(stress).all() else None,
                )
            )
            start = end
    return labels


def label_structures(
    potential: Potential,
    frames: Sequence[Atoms],
    *,
    device: str = "cpu",
    workers: int = 1,
    scheduler: str | None = None,
) -> list[Atoms]:
    """Copies of structures with the potential's energy, forces and stress as labels.

    Args:
        potential: any potential of ours.
        frames: structures.
        device: "cpu", "cuda" or "auto".
        workers: processes that Dask starts; 1 computes in this process.
        scheduler: address of a Dask scheduler, whose workers are taken instead.

    Raises:
        InputError: see ``predict`` and ``predict_distributed``.
        ComputationError: see ``predict_distributed``.
    """
    if workers > 1 or scheduler is not None:
        from pretrain_mlip.calculators.distributed import predict_distributed

        labels = predict_distributed(
            potential, frames, workers=workers, scheduler=scheduler, device=device, description="labelling"
        )
    else:
        labels = predict(potential, frames, device=device, description="labelling")
    copies = [atoms.copy() for atoms in frames]
    for atoms, found in zip(copies, labels, strict=True):
        set_labels(atoms, found.energy, found.forces, found.stress)
    return copies


def _batches(potential: Potential, frames: Sequence[Atoms], first: int, description: str) -> Iterator[list[Data]]:
    graphs: list[Data] = []
    edges = 0
    for number, atoms in enumerate(track(frames, description), start=first):
        try:
            potential.types(torch.from_numpy(atoms.numbers.astype(np.int64)).to(next(potential.buffers()).device))
            graph = make_graph(atoms, potential.cutoff, half=potential.half_list)
        except InputError as error:
            raise InputError(f"{name_of(atoms, number)}: {error}") from None
        graphs.append(graph)
        edges += graph[keys.EDGE_INDEX].shape[1]
        if edges >= EDGES_PER_BATCH:
            yield graphs
            graphs, edges = [], 0
    if graphs:
        yield graphs
