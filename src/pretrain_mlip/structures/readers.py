"""Frames of one file as ASE gives them: extended XYZ (also gzipped), ASE databases, and whatever else ASE reads."""

from __future__ import annotations

import gzip
import io
import zlib
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import ase.db
import ase.io
from ase import Atoms
from ase.io.extxyz import read_xyz
from ase.utils import string2index

from pretrain_mlip.console import track
from pretrain_mlip.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_EXTXYZ_ENDINGS = (".extxyz", ".xyz", ".extxyz.gz", ".xyz.gz")
_SQLITE = b"SQLite format 3\0"


def read_frames(path: Path, index: str) -> Iterator[tuple[int, Atoms]]:
    """Yield the number (from 0) and the content of the frames of a file that ``index`` selects.

    Raises:
        InputError: the file is missing, empty, cut off or unreadable; the message names file and frame.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.is_file() and path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty (0 bytes)")
    wanted = _index(index)
    name = path.name.lower()
    if name.endswith(_EXTXYZ_ENDINGS):
        yield from _read_extxyz(path, wanted)
    elif name.endswith(".db"):
        yield from _read_database(path, wanted)
    else:
        yield from _read_other(path, wanted)


class Span(NamedTuple):
    """Where a frame stands in a file."""

    start: int  # byte
    stop: int
    line: int  # from 1


def extxyz_spans(path: Path, stream: IO[bytes]) -> Iterator[Span]:
    """Yield where the frames of extended XYZ are, from the start of a stream on; blank lines between them are allowed.

    Raises:
        InputError: a line is missing, or the last frame is cut off.
    """
    place = frames = 0
    number = 1
    line = stream.readline()
    while line:
        if not line.strip():
            place, number, line = place + len(line), number + 1, stream.readline()
            continue
        found = line.strip()[:40]
        # Digits only: ASE would take a negative number and go back to where it came from.
        if not found.isdigit() or int(found) == 0:
            where = f"{path} frame {frames} (line {number})"
            raise InputError(
                f"{where}: a number of atoms is expected, found '{_decoded(path, found)}'; is a line missing?"
            )
        lines = [line, *islice(stream, int(found) + 1)]
        if len(lines) < int(found) + 2:
            raise InputError(f"{path} frame {frames}: {int(found)} atoms announced, but the file ends; is it cut off?")
        line = stream.readline()
        while line.lstrip().startswith(b"VEC"):
            lines.append(line)
            line = stream.readline()
        stop = place + sum(map(len, lines))
        yield Span(place, stop, number)
        place, number, frames = stop, number + len(lines), frames + 1


def read_part(path: Path, part: Span, first: int) -> Iterator[tuple[int, Atoms]]:
    """Yield number and content of the frames of a part of a file of extended XYZ that is not compressed.

    Args:
        path: the file.
        part: from the start of a frame to the end of another.
        first: number of the first frame.

    Raises:
        InputError: the file is unreadable; the message names file and frame.
    """
    with path.open("rb") as file:
        file.seek(part.start)
        stream = io.BytesIO(file.read(part.stop - part.start))
    for number, span in enumerate(list(extxyz_spans(path, stream)), start=first):
        yield number, _frame(path, stream, number, span._replace(line=part.line + span.line - 1))


def _read_extxyz(path: Path, wanted: int | slice) -> Iterator[tuple[int, Atoms]]:
    # The frames are cut here and not by ASE, which stops without a word at the first blank line and cannot say which
    # frame is broken; what is compressed is read whole, since going back and forth there is very slow.
    with _opened(path) as stream:
        spans = _selected(path, list(extxyz_spans(path, stream)), wanted)
        for number, span in track(spans, f"Reading {path.name}"):
            yield number, _frame(path, stream, number, span)


def _frame(path: Path, stream: IO[bytes], number: int, span: Span) -> Atoms:
    stream.seek(span.start)
    text = _decoded(path, stream.read(span.stop - span.start))
    try:
        (atoms,) = read_xyz(io.StringIO(text.replace("\r\n", "\n")), index=0)
    except Exception as error:  # noqa: BLE001  # ASE's readers raise whatever the content leads to
        raise InputError(f"{path} frame {number} (line {span.line}): {_reason(error)}") from None
    return atoms


def _read_database(path: Path, wanted: int | slice) -> Iterator[tuple[int, Atoms]]:
    with path.open("rb") as stream:
        header = stream.read(len(_SQLITE))
    if header != _SQLITE:  # ASE would make an empty database of a file that is almost empty
        raise InputError(f"{path}: not a readable ASE database (no SQLite file)")
    try:
        rows = list(ase.db.connect(path).select())
    except Exception as error:  # noqa: BLE001  # sqlite, JSON and ASE errors alike
        raise InputError(f"{path}: not a readable ASE database ({_reason(error)})") from None
    for number, row in _selected(path, rows, wanted):
        atoms = row.toatoms()
        atoms.info.update({**row.data, **row.key_value_pairs})
        yield number, atoms


def _read_other(path: Path, wanted: int | slice) -> Iterator[tuple[int, Atoms]]:
    try:
        frames = list(track(ase.io.iread(path, index=":"), f"Reading {path.name}"))
    except Exception as error:  # noqa: BLE001  # ASE's readers raise whatever the content leads to
        raise InputError(f"{path}: ASE cannot read this file ({_reason(error)}); extxyz is the safest") from None
    yield from _selected(path, frames, wanted)


def _index(text: str) -> int | slice:
    try:
        index = string2index(text)
    except ValueError:
        index = text
    if isinstance(index, str) or (isinstance(index, slice) and index.step == 0):
        raise InputError(f"index '{text}': not an index such as ':', '-1' or '::10'")
    return index


def _selected(path: Path, items: list[Any], wanted: int | slice) -> list[tuple[int, Any]]:
    if not items:
        raise InputError(f"{path}: no frame in this file")
    numbered = list(enumerate(items))
    if isinstance(wanted, slice):
        return numbered[wanted]
    if not -len(items) <= wanted < len(items):
        raise InputError(f"{path}: no frame '{wanted}'; the file has {len(items)}")
    return [numbered[wanted]]


def _opened(path: Path) -> IO[bytes]:
    try:
        if path.suffix.lower() == ".gz":
            return io.BytesIO(gzip.decompress(path.read_bytes()))
        return path.open("rb")
    except EOFError:
        raise InputError(f"{path}: the gzip file is cut off; copy or download it again") from None
    except (OSError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({_reason(error)})") from None


def _decoded(path: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file, though its name says extended XYZ") from None


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text[:160] or type(error).__name__
