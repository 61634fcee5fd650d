"""A structure as a torch_geometric graph."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np
import torch
from ase import Atoms
from torch import Tensor
from torch_geometric.data import Data

from pretrain_mlip import keys
from pretrain_mlip.errors import InputError
from pretrain_mlip.structures.io import labels_of, name_of
from pretrain_mlip.structures.neighbors import find_pairs


def make_graph(atoms: Atoms, cutoff: float, *, labels: bool = False, half: bool = False) -> Data:
    """The graph of a structure: all pairs within the cutoff, sorted by centre; geometry in float64.

    Args:
        atoms: the structure.
        cutoff: Å.
        labels: carry energy, forces, stress (nan where absent), and weight, kind and name of the structure as well.
        half: one edge per pair and not two, for potentials whose ``half_list`` says so.

    Raises:
        InputError: positions or cell cannot be used (see ``find_pairs``).
    """
    centre, neighbour, shifts = find_pairs("ijS", atoms, cutoff)
    if half:
        once = _once(centre, neighbour, shifts)
        centre, neighbour, shifts = centre[once], neighbour[once], shifts[once]
    cell = np.array(atoms.cell)
    volume = abs(np.linalg.det(cell)) if atoms.pbc.all() else float("nan")
    content = {
        keys.ATOMIC_NUMBERS: torch.from_numpy(atoms.numbers.astype(np.int64)),
        keys.POSITIONS: torch.from_numpy(np.array(atoms.positions, dtype=np.float64)),
        keys.CELL: torch.from_numpy(cell.astype(np.float64))[None],
        keys.VOLUME: torch.tensor([volume], dtype=torch.float64),
        keys.EDGE_INDEX: torch.from_numpy(np.stack([neighbour, centre]).astype(np.int64)),
        keys.CELL_SHIFTS: torch.from_numpy(shifts.astype(np.int16)),
    }
    if half:
        content[keys.HALF_LIST] = torch.tensor([True])
    if labels:
        content |= _labels(atoms)
    return Data(num_nodes=len(atoms), **content)


def _once(centre: Any, neighbour: Any, shifts: Any) -> Any:
    """Which edges stay where every pair is to be there once: to the larger index, or the first image; any arrays."""
    x, y, z = shifts.T
    first_image = (x > 0) | ((x == 0) & ((y > 0) | ((y == 0) & (z > 0))))
    return (centre < neighbour) | ((centre == neighbour) & first_image)


def half_of(graph: Data) -> Data:
    """The graph with one edge per pair; itself where that is so already."""
    if keys.HALF_LIST in graph:
        return graph
    neighbour, centre = graph[keys.EDGE_INDEX]
    half = _with_edges(graph, _once(centre, neighbour, graph[keys.CELL_SHIFTS]).nonzero().squeeze(1))
    half[keys.HALF_LIST] = torch.ones(graph[keys.VOLUME].shape, dtype=torch.bool)
    return half


def within(graph: Data, cutoff: float) -> Data:
    """The graph with the edges that are shorter than a cutoff (Å)."""
    return _with_edges(graph, (edge_vectors(graph).square().sum(1) < cutoff**2).nonzero().squeeze(1))


def _with_edges(graph: Data, edges: Tensor) -> Data:
    other = copy(graph)  # shares all tensors
    other[keys.EDGE_INDEX] = graph[keys.EDGE_INDEX].index_select(1, edges)
    other[keys.CELL_SHIFTS] = graph[keys.CELL_SHIFTS].index_select(0, edges)
    return other


def make_batch(graphs: Sequence[Data]) -> Data:
    """Several graphs as one, with the structure of each atom (``batch``, (N,)) and its first atom (``ptr``, (B + 1,)).

    What torch_geometric's ``Batch.from_data_list`` holds, in a quarter of the time: trainings wait for it.
    """
    columns = {name: [graph[name] for graph in graphs] for name in graphs[0].keys()}  # noqa: SIM118  # not a mapping
    device = graphs[0][keys.POSITIONS].device
    atoms = torch.tensor(columns.pop("num_nodes"), device=device)
    ptr = torch.cat([atoms.new_zeros(1), atoms.cumsum(0)])
    content: dict[str, Any] = {}
    for name, values in columns.items():
        if name == keys.EDGE_INDEX:
            edges = torch.tensor([value.shape[1] for value in values], device=device)
            content[name] = torch.cat(values, dim=1) + ptr[:-1].repeat_interleave(edges)
        else:
            content[name] = torch.cat(values) if isinstance(values[0], Tensor) else values
    batch = torch.arange(len(graphs), device=device).repeat_interleave(atoms)
    return Data(num_nodes=int(ptr[-1]), **content, **{keys.BATCH: batch}, ptr=ptr)


def batch_index(graph: Data) -> Tensor:
    """(N,) the structure that each atom belongs to."""
    batch = graph.get(keys.BATCH)
    if batch is None:
        return torch.zeros(graph[keys.POSITIONS].shape[0], dtype=torch.int64, device=graph[keys.POSITIONS].device)
    return batch


def edge_vectors(graph: Data) -> Tensor:
    """(E, 3) Å, from the centre to the neighbour. The reversed edge has exactly the negative vector."""
    neighbour, centre = graph[keys.EDGE_INDEX]
    positions, cell = graph[keys.POSITIONS], graph[keys.CELL]
    difference = positions.index_select(0, neighbour) - positions.index_select(0, centre)
    shifts = graph[keys.CELL_SHIFTS].to(positions.dtype)
    if cell.shape[0] == 1:
        return difference + shifts @ cell[0]
    cells = cell.index_select(0, batch_index(graph).index_select(0, centre))
    return difference + torch.einsum("ea,eab->eb", shifts, cells)


def _labels(atoms: Atoms) -> dict[str, Any]:
    found = labels_of(atoms)
    missing = float("nan")
    forces = np.full((len(atoms), 3), missing) if found.forces is None else found.forces
    # Without three periodic directions there is no volume, and no stress to compare with
    stress = found.stress if found.stress is not None and atoms.pbc.all() else np.full(6, missing)
    return {
        keys.ENERGY: torch.tensor([missing if found.energy is None else found.energy], dtype=torch.float64),
        keys.FORCES: torch.as_tensor(np.array(forces), dtype=torch.float64),
        keys.STRESS: torch.as_tensor(np.array(stress), dtype=torch.float64)[None],
        keys.CONFIG_TYPE: str(atoms.info.get(keys.CONFIG_TYPE, "(none)")),
        keys.STRUCTURE_ID: name_of(atoms, atoms.get_chemical_formula()),
        keys.CONFIG_WEIGHT: torch.tensor([float(atoms.info.get(keys.CONFIG_WEIGHT, 1.0))], dtype=torch.float64),
    }


def device_named(name: str) -> torch.device:
    """A torch device; "auto" is a GPU where there is one.

    Raises:
        InputError: the device is not available.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device '{name}' is not available ({str(error).splitlines()[0]})") from error
    return device
