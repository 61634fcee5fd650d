"""Graphs in files, for sets that are larger than memory.

A store is a folder: ``plan.json`` says what it was made from and how that is divided, and every part of it is a file of
records with an index at its end. Parts are written whole or not at all and do not depend on each other, so that they
can be made at the same time, and one that is missing or damaged is made again alone.

Every record has a checksum. All are compared when a store is opened, which costs as much as reading the files once, and
each again when its record is read: what a disk loses in the middle of a training ends it with a message.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from weakref import finalize

import numpy as np
from torch_geometric.data import Data

from pretrain_mlip import keys
from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.files import atomic_path, read_json
from pretrain_mlip.graphs.records import decode, digest, encode
from pretrain_mlip.graphs.sequences import Graphs

FORMAT = 1  # of records and of the files that hold them
PLAN = "plan.json"
_MAGIC = b"graphs\r\n"  # a transfer as text would change it
_TRAILER = struct.Struct("<QQI4x8s")  # start, length and checksum of the index


class Damaged(Exception):  # noqa: N818  # not an error: whoever opens a store decides what to do
    """A part of a store is missing, stale or damaged; the message says which, and how."""


class Part(NamedTuple):
    """What is known of the records of a file: offsets (n + 1,), checksums, edges, digests (n, 16), kinds."""

    path: Path
    offsets: np.ndarray
    checksums: np.ndarray
    edges: np.ndarray
    digests: np.ndarray
    kinds: np.ndarray


def part_path(folder: Path, number: int) -> Path:
    """The file of a part, counted from 0."""
    return folder / f"{number:05d}.graphs"


def write_part(path: Path, key: str, graphs: Iterable[Data]) -> None:
    """Write graphs into a file of a store; ``key`` says what they were made from.

    Raises:
        ComputationError: the disk is full, or cannot be written to; nothing is left behind.
    """
    offsets, checksums, edges, digests, kinds = [0], [], [], [], set()
    with refused_writes(path), atomic_path(path) as temporary, temporary.open("wb") as stream:
        for graph in graphs:
            record = encode(graph)
            stream.write(record)
            offsets.append(offsets[-1] + len(record))
            checksums.append(zlib.crc32(record))
            edges.append(graph[keys.EDGE_INDEX].shape[1])
            digests.append(np.frombuffer(digest(graph), np.uint8))
            kinds.add(graph[keys.CONFIG_TYPE])
        index = io.BytesIO()
        np.savez(
            index,
            key=np.array(key),
            offsets=np.array(offsets, np.int64),
            checksums=np.array(checksums, np.uint32),
            edges=np.array(edges, np.int64),
            digests=np.array(digests),
            kinds=np.array(sorted(kinds)),
        )
        content = index.getvalue()
        stream.write(content + _TRAILER.pack(offsets[-1], len(content), zlib.crc32(content), _MAGIC))
        stream.flush()
        os.fsync(stream.fileno())  # or a power failure may leave a name without content


@contextmanager
def refused_writes(path: Path) -> Iterator[None]:
    """Turn what the system says of a full or broken disk into a message.

    Raises:
        ComputationError: a file cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise ComputationError(
            f"{path}: cannot be written ({error.strerror or error}); make room, then go on with the run: parts of the "
            "store that are done stay"
        ) from error


def check_part(path: Path, key: str) -> Part:
    """Read a file of a store, and compare every record with its checksum.

    Raises:
        Damaged: it is missing, was made from something else, or a byte of it is another one.
    """
    try:
        with path.open("rb") as stream:
            part, found = _index(path, stream)
            if found != key:
                raise Damaged(f"{path}: was made from something else")
            stream.seek(0)
            for number, (size, checksum) in enumerate(zip(np.diff(part.offsets), part.checksums, strict=True)):
                if zlib.crc32(stream.read(size)) != checksum:
                    raise Damaged(f"{path}: record {number} is damaged")
    except FileNotFoundError:
        raise Damaged(f"{path}: not there") from None
    except OSError as error:
        raise Damaged(f"{path}: cannot be read ({error.strerror})") from error
    return part


def _index(path: Path, stream: BinaryIO) -> tuple[Part, str]:
    size = stream.seek(0, os.SEEK_END)
    if size < _TRAILER.size:
        raise Damaged(f"{path}: is cut off")
    stream.seek(size - _TRAILER.size)
    start, length, checksum, magic = _TRAILER.unpack(stream.read())
    if magic != _MAGIC or start + length + _TRAILER.size != size:
        raise Damaged(f"{path}: is cut off, or its end is damaged")
    stream.seek(start)
    content = stream.read(length)
    if zlib.crc32(content) != checksum:
        raise Damaged(f"{path}: its index is damaged")
    with np.load(io.BytesIO(content), allow_pickle=False) as index:
        return Part(path, *(index[name] for name in Part._fields[1:])), str(index["key"])


class GraphStore(Graphs):
    """The graphs of a folder, read one by one when they are asked for.

    Several processes may read the same store; nothing is written. Of each graph 60 bytes stay in memory.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        """Take parts that were checked."""
        self.parts = parts
        self.starts = np.cumsum([0, *(len(part.edges) for part in parts)])
        self.edges = np.concatenate([part.edges for part in parts])
        self.digests = np.concatenate([part.digests for part in parts])
        self.kinds = frozenset(str(kind) for part in parts for kind in part.kinds)
        # Read and not mapped: where a mapped file turns out shorter than it was, the process is killed
        self._files = [os.open(part.path, os.O_RDONLY) for part in parts]
        finalize(self, _close, self._files)

    @classmethod
    def open(cls, folder: Path) -> GraphStore:
        """Open a complete store.

        Raises:
            InputError: there is none, or a part of it is missing or damaged.
        """
        plan = read_json(folder / PLAN)
        try:
            return cls([check_part(part_path(folder, number), key) for number, key in enumerate(part_keys(plan))])
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
