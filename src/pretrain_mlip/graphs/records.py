"""A graph as bytes, and back to the bit.

Edges are most of a graph. Sorted by centre, they need one small integer for their neighbour and one for their shift, by
its place in a table of those that occur; centres follow from the number of neighbours of each atom. Integers are as
small as the structure allows: 24 atoms of silica with 884 edges are 3 kB here, and 28 kB in memory.
"""

from __future__ import annotations

import hashlib
import struct

import numpy as np
import torch
from torch_geometric.data import Data

from pretrain_mlip import keys

# Numbers of atoms, edges and shifts, bytes of the two texts; bytes of a number of neighbours, a neighbour, a shift
_HEADER = struct.Struct("<5I4B")
_FIXED = 18  # floats that every graph has: cell, volume, energy, stress, weight
_CONTENT = (keys.ATOMIC_NUMBERS, keys.POSITIONS, keys.CELL, *keys.LABELS, keys.CONFIG_WEIGHT)
_FIELDS = {
    *_CONTENT,
    keys.VOLUME,
    keys.EDGE_INDEX,
    keys.CELL_SHIFTS,
    keys.CONFIG_TYPE,
    keys.STRUCTURE_ID,
    "num_nodes",
}


def encode(graph: Data) -> bytes:
    """The bytes of a graph with labels, as ``make_graph`` gives it.

    Raises:
        ValueError: it has other fields, or edges that are not sorted by centre.
    """
    if set(graph.keys()) != _FIELDS:
        raise ValueError(f"a record cannot hold these fields of a graph: {sorted(set(graph.keys()) ^ _FIELDS)}")
    neighbour, centre = graph[keys.EDGE_INDEX].numpy()
    if (np.diff(centre) < 0).any():
        raise ValueError("a record holds edges that are sorted by centre")
    numbers = graph[keys.ATOMIC_NUMBERS].numpy()
    all_shifts = graph[keys.CELL_SHIFTS].numpy()
    packed = all_shifts.astype(np.int64) @ np.array([2**32, 2**16, 1])  # one number each: far quicker to tell apart
    _, first, places = np.unique(packed, return_index=True, return_inverse=True)
    shifts = all_shifts[first]
    integers = [_small(values) for values in (np.bincount(centre, minlength=len(numbers)), neighbour, places)]
    kind, name = (graph[key].encode() for key in (keys.CONFIG_TYPE, keys.STRUCTURE_ID))
    names = (keys.CELL, keys.VOLUME, keys.ENERGY, keys.STRESS, keys.CONFIG_WEIGHT, keys.POSITIONS, keys.FORCES)
    floats = np.concatenate([graph[field].numpy().ravel() for field in names])
    sizes = (len(numbers), len(neighbour), len(shifts), len(kind), len(name))
    parts = (floats.astype("<f8"), shifts.astype("<i2"), numbers.astype(np.uint8), *integers)
    header = _HEADER.pack(*sizes, *(values.itemsize for values in integers), 0)
    return b"".join((header, *(values.tobytes() for values in parts), kind, name))


def decode(record: bytes) -> Data:
    """The graph of ``encode``, equal in every bit; its tensors are its own."""
    atoms, edges, n_shifts, kind_size, name_size, *widths = _HEADER.unpack_from(record)
    place = _HEADER.size

    def take(dtype: str, count: int) -> np.ndarray:
        nonlocal place
        values = np.frombuffer(record, dtype, count, place)
        place += values.nbytes
        return values

    floats = torch.from_numpy(take("<f8", _FIXED + 6 * atoms).astype(np.float64))
    cell, volume, energy, stress, weight, positions, forces = floats.split([9, 1, 1, 6, 1, 3 * atoms, 3 * atoms])
    shifts = take("<i2", 3 * n_shifts).reshape(n_shifts, 3).astype(np.int16)
    numbers = take("u1", atoms)
    counts, neighbours, places = (
        take(f"<u{width}", count) for width, count in zip(widths, (atoms, edges, edges), strict=False)
    )
    edge_index = np.empty((2, edges), np.int64)
    edge_index[0] = neighbours
    edge_index[1] = np.repeat(np.arange(atoms), counts)
    kind = record[place : place + kind_size].decode()
    name = record[place + kind_size : place + kind_size + name_size].decode()
    return Data(
        num_nodes=atoms,
        **{
            keys.ATOMIC_NUMBERS: torch.from_numpy(numbers.astype(np.int64)),
            keys.POSITIONS: positions.view(atoms, 3),
            keys.CELL: cell.view(1, 3, 3),
            keys.VOLUME: volume,
            keys.EDGE_INDEX: torch.from_numpy(edge_index),
            keys.CELL_SHIFTS: torch.from_numpy(shifts.take(places, axis=0)),
            keys.ENERGY: energy,
            keys.FORCES: forces.view(atoms, 3),
            keys.STRESS: stress.view(1, 6),
            keys.CONFIG_TYPE: kind,
            keys.STRUCTURE_ID: name,
            keys.CONFIG_WEIGHT: weight,
        },
    )


def digest(graph: Data) -> bytes:
    """16 bytes that tell structures, labels and weights apart."""
    found = hashlib.blake2b(digest_size=16)
    for name in _CONTENT:
        found.update(np.ascontiguousarray(graph[name].numpy()).tobytes())
    return found.digest()


def _small(values: np.ndarray) -> np.ndarray:
    """Non-negative integers in the smallest type that holds them."""
    return values.astype(np.min_scalar_type(values.max(initial=0)).newbyteorder("<"))
