"""Graphs in files, for sets that are larger than memory.

A store is a folder: ``plan.json`` says what it was made from and how that is divided, and every part of it is an HDF5
file: ``records`` one after another, and the index of them. Parts are written whole or not at all and do not depend on
each other, so that they can be made at the same time, and one that is missing or damaged is made again alone.

Every file has a checksum, which is compared when a store is opened and costs as much as reading it once, and so has
every record, when it is read: what a disk loses in the middle of a training ends it with a message.
"""

from __future__ import annotations

import io
import json
import os
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from weakref import finalize

import h5py
import numpy as np
from torch_geometric.data import Data

from pretrain_mlip import keys
from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.files import atomic_path, read_json, refused_writes
from pretrain_mlip.graphs.records import decode, digest, encode
from pretrain_mlip.graphs.sequences import Graphs

FORMAT = 1  # of records and of the files that hold them
PLAN = "plan.json"
PARTS_STAY = "make room, then go on with the run: parts of the store that are done stay"
_RECORDS = "records"
_USER_BLOCK = 512  # bytes, the least that HDF5 allows
_UNREADABLE = (OSError, RuntimeError, KeyError, ValueError, TypeError)  # what h5py raises for damaged files


class Damaged(Exception):  # noqa: N818  # not an error: whoever opens a store decides what to do
    """A part of a store is missing, stale or damaged; the message says which, and how."""


class Part(NamedTuple):
    """What is known of the records of a file: offsets in it (n + 1,), checksums, edges, digests (n, 16), kinds."""

    path: Path
    offsets: np.ndarray
    checksums: np.ndarray
    edges: np.ndarray
    digests: np.ndarray
    kinds: list[str]


def part_path(folder: Path, number: int) -> Path:
    """The file of a part, counted from 0."""
    return folder / f"{number:05d}.h5"


def write_part(path: Path, key: str, graphs: Iterable[Data]) -> None:
    """Write graphs into a file of a store; ``key`` says what they were made from.

    Raises:
        ComputationError: the disk is full, or cannot be written to; nothing is left behind.
    """
    records, offsets, checksums, edges, digests, kinds = [], [0], [], [], [], set()
    with refused_writes(path, PARTS_STAY), atomic_path(path) as temporary, temporary.open("wb") as stream:
        for graph in graphs:
            record = encode(graph)
            records.append(record)
            offsets.append(offsets[-1] + len(record))
            checksums.append(zlib.crc32(record))
            edges.append(graph[keys.EDGE_INDEX].shape[1])
            digests.append(np.frombuffer(digest(graph), np.uint8))
            kinds.add(graph[keys.CONFIG_TYPE])
        stream.write(
            _hdf5(
                key,
                np.frombuffer(b"".join(records), np.uint8),
                offsets=np.array(offsets, np.int64),
                checksums=np.array(checksums, np.uint32),
                edges=np.array(edges, np.int64),
                digests=np.array(digests),
                kinds=np.frombuffer(json.dumps(sorted(kinds)).encode(), np.uint8),
            )
        )
        stream.flush()
        os.fsync(stream.fileno())  # or a power failure may leave a name without content


def _hdf5(key: str, records: np.ndarray, **index: np.ndarray) -> bytes:
    """A file, made in memory: HDF5 does not recover from a disk that is full."""
    memory = io.BytesIO()
    with h5py.File(memory, "w", userblock_size=_USER_BLOCK) as file:
        file.attrs["key"] = key
        file.create_dataset(_RECORDS, data=records)
        for name, values in index.items():
            file.create_dataset(name, data=values)
    content = memory.getvalue()[_USER_BLOCK:]
    return _heading(content) + content


def _heading(content: bytes | memoryview) -> bytes:
    """The block that HDF5 leaves to its users. A damaged file never gets to HDF5, which may read it without end."""
    return f"graphs of pretrain-mlip, CRC-32 {zlib.crc32(content):08x}\n".encode().ljust(_USER_BLOCK, b"\0")


def check_part(path: Path, key: str) -> Part:
    """Read a file of a store, and compare it with its checksum.

    Raises:
        Damaged: it is missing, was made from something else, or a byte of it is another one.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise Damaged(f"{path}: not there") from None
    except OSError as error:
        raise Damaged(f"{path}: cannot be read ({error.strerror})") from error
    if content[:_USER_BLOCK] != _heading(memoryview(content)[_USER_BLOCK:]):
        raise Damaged(f"{path}: is cut off or damaged")
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            found = str(file.attrs["key"])
            index = {name: _array(file[name])[()] for name in Part._fields[1:]}
            start = _array(file[_RECORDS]).id.get_offset()
        index["offsets"] = index["offsets"] + start
        part = Part(path, **{**index, "kinds": json.loads(index["kinds"].tobytes())})
    except _UNREADABLE as error:
        raise Damaged(f"{path}: is not of this format ({' '.join(str(error).split())})") from error
    if found != key:
        raise Damaged(f"{path}: was made from something else")
    return part


def _array(found: Any) -> h5py.Dataset:
    if not isinstance(found, h5py.Dataset):
        raise TypeError("an array is expected")
    return found


class GraphStore(Graphs):
    """The graphs of a folder, read one by one when they are asked for.

    Several processes may read the same store; nothing is written. Of each graph some 100 bytes stay in memory.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        """Take parts that were checked."""
        self.parts = parts
        self.starts = np.cumsum([0, *(len(part.edges) for part in parts)])
        self.edges = np.concatenate([part.edges for part in parts])
        self.digests = np.concatenate([part.digests for part in parts])
        self.kinds = frozenset(kind for part in parts for kind in part.kinds)
        # Read and not mapped: where a mapped file turns out shorter than it was, the process is killed
        self._files = [os.open(part.path, os.O_RDONLY) for part in parts]
        finalize(self, _close, self._files)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> GraphStore:
        """Open a complete store.

        Raises:
            InputError: there is none, or a part of it is missing or damaged.
        """
        folder = Path(folder)
        plan = read_json(folder / PLAN)
        try:
            return cls([check_part(part_path(folder, number), key) for number, key in enumerate(part_keys(plan))])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{folder / PLAN}: damaged; go on with the run, which makes it again") from error
        except Damaged as error:
            raise InputError(f"{error}; go on with the run, which makes it again") from error

    def read(self, index: int) -> Data:
        """The graph at a place.

        Raises:
            ComputationError: its record is no longer what was written.
        """
        number = int(np.searchsorted(self.starts, index, side="right")) - 1
        part, place = self.parts[number], index - int(self.starts[number])
        start, stop = (int(offset) for offset in part.offsets[place : place + 2])
        try:
            record = os.pread(self._files[number], stop - start, start)
        except OSError as error:
            raise ComputationError(f"{part.path}: cannot be read ({error.strerror}); look at the disk") from error
        if zlib.crc32(record) != part.checksums[place]:
            raise ComputationError(
                f"{part.path}: record {place} was damaged after it had been checked; look at the disk, then go on with "
                "the run, which makes this file again"
            )
        return decode(record)


def _close(files: Sequence[int]) -> None:
    for file in files:
        os.close(file)


def part_keys(plan: dict[str, Any]) -> list[str]:
    """What each part of a store is made from, as text."""
    source = ", ".join(f"{name} {value}" for name, value in plan["source"].items())
    return [f"{source}, bytes {start} to {stop}" for start, stop, *_ in plan["parts"]]
