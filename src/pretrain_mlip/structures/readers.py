"""Frames of one file as ASE gives them: extended XYZ (also gzipped), ASE databases, and whatever else ASE reads."""

from __future__ import annotations

import gzip
import io
import zlib
from typing import TYPE_CHECKING, Any

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


def _read_extxyz(path: Path, wanted: int | slice) -> Iterator[tuple[int, Atoms]]:
    # The text is read whole: ASE seeks back and forth, which is very slow in a gzip stream. The frames are cut here and
    # not by ASE, which stops without a word at the first blank line and cannot say which frame is broken.
    lines = _text(path).splitlines()
    spans = _selected(path, _extxyz_spans(path, lines), wanted)
    for number, (start, stop) in track(spans, f"Reading {path.name}"):
        try:
            (atoms,) = read_xyz(io.StringIO("\n".join(lines[start:stop]) + "\n"), index=0)
        except Exception as error:  # noqa: BLE001  # ASE's readers raise whatever the content leads to
            raise InputError(f"{path} frame {number} (line {start + 1}): {_reason(error)}") from None
        yield number, atoms


def _extxyz_spans(path: Path, lines: list[str]) -> list[tuple[int, int]]:
    """First and one-past-last line of every frame; blank lines between frames are allowed."""
    spans: list[tuple[int, int]] = []
    place = 0
    while place < len(lines):
        if not lines[place].strip():
            place += 1
            continue
        found = lines[place].strip()[:40]
        # Digits only: a negative number would send this loop back to where it came from.
        if not (found.isascii() and found.isdigit()) or int(found) == 0:
            where = f"{path} frame {len(spans)} (line {place + 1})"
            raise InputError(f"{where}: a number of atoms is expected, found '{found}'; is a line missing?")
        n_atoms = int(found)
        stop = place + n_atoms + 2
        if stop > len(lines):
            raise InputError(f"{path} frame {len(spans)}: {n_atoms} atoms announced, but the file ends; is it cut off?")
        while stop < len(lines) and lines[stop].lstrip().startswith("VEC"):
            stop += 1
        spans.append((place, stop))
        place = stop
    return spans


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


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
        if path.suffix.lower() == ".gz":
            content = gzip.decompress(content)
        return content.decode("utf-8")
    except EOFError:
        raise InputError(f"{path}: the gzip file is cut off; copy or download it again") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file, though its name says extended XYZ") from None
    except (OSError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({_reason(error)})") from None


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text[:160] or type(error).__name__
