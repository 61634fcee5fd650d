"""Reading setfl tables, ``pair_style eam/alloy`` and ``eam/fs`` of LAMMPS, such as those of published potentials.

The layout is that of ``setfl``. As in LAMMPS, every table starts on a new line, line breaks within it are free, blank
lines and what follows a ``#`` are skipped. Anything else that does not fit is an error: LAMMPS itself would read on
past a table that is too long, and nobody would notice.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from pretrain_mlip.errors import InputError
from pretrain_mlip.files import sha256
from pretrain_mlip.potentials.eam.embedded_atom import Form
from pretrain_mlip.potentials.eam.tabulated import TabulatedEAM

SUFFIXES = (".alloy", ".fs", ".setfl", ".eam")  # of files that are EAM tables; *.eam are funcfl, which is then said
FORMS: tuple[Form, Form] = ("alloy", "fs")
COMMENTS = 3
SHORT = 2.0  # steps by which a table may end before the cutoff: published files often stop one short


def read_setfl(path: str | os.PathLike[str], elements: Sequence[str] | None = None) -> TabulatedEAM:
    """An EAM from setfl tables, interpolated as LAMMPS does.

    A file named ``*.fs`` must hold eam/fs tables and one named ``*.alloy`` eam/alloy tables, since other programs go by
    the name; in any other file the number of values decides. Elements are known by their symbols, the atomic numbers in
    the file are not used (some published files say 1 for all).

    An isolated atom has the energy F(0) of the tables, and the E0s of the potential are zero. ``report`` says the
    name of the file, its comments and its SHA-256.

    Args:
        path: the file; energies in eV, lengths in Å.
        elements: those to keep, in this order; all as the file orders them where not given.

    Raises:
        InputError: the file is missing, damaged or not setfl, its name contradicts its content, or it lacks an element.
    """
    lines = _lines(path)
    named: Form | None = next((form for form in FORMS if os.fspath(path).endswith(f".{form}")), None)
    first = named or "alloy"
    try:
        tables = _parse(path, lines, first)
    except InputError as error:
        other: Form = "fs" if first == "alloy" else "alloy"
        try:
            tables = _parse(path, lines, other)
        except InputError:
            raise error from None
        if named:
            raise InputError(
                f"{path}: holds eam/{other} tables, though other programs take it for eam/{named} by its name; "
                f"rename it to *.eam.{other}"
            ) from None
    eam = _select(path, tables, elements)
    eam.report = {
        "source": Path(path).name,
        "sha256": sha256(path),
        "comments": [line.strip() for line in lines[:COMMENTS]],
        "element_lines": {symbol: tables.element_lines[symbol] for symbol in eam.elements},
    }
    return eam.requires_grad_(False)  # noqa: FBT003


class _Tables(NamedTuple):
    """A file's content: r phi by pair (later element, earlier element), densities by (source, centre or 0)."""

    form: Form
    elements: list[str]
    grid: dict[str, Any]
    cutoff: float
    element_lines: dict[str, str]
    embedding: dict[int, Tensor]
    density: dict[tuple[int, int], Tensor]
    pair: dict[tuple[int, int], Tensor]


def _parse(path: str | os.PathLike[str], lines: list[str], form: Form) -> _Tables:
    reader = _Reader(path, lines)
    elements = reader.elements()
    grid, cutoff = reader.grid()
    tables = _Tables(form, elements, grid, cutoff, {}, {}, {}, {})
    for a, symbol in enumerate(elements):
        tables.element_lines[symbol] = reader.element_line(symbol)
        tables.embedding[a] = reader.table(grid["points_rho"], f"embedding function of {symbol}")
        for c in range(len(elements) if form == "fs" else 1):
            onto = f" at {elements[c]}" if form == "fs" else ""
            tables.density[a, c] = reader.table(grid["points_r"], f"density of {symbol}{onto}")
    for a in range(len(elements)):
        for b in range(a + 1):
            tables.pair[a, b] = reader.table(grid["points_r"], f"pair function of {elements[a]}-{elements[b]}")
    reader.end()
    return tables


def _select(path: str | os.PathLike[str], tables: _Tables, elements: Sequence[str] | None) -> TabulatedEAM:
    """The potential of some of the elements."""
    wanted = list(tables.elements if elements is None else elements)
    missing = [symbol for symbol in wanted if symbol not in tables.elements]
    if missing:
        raise InputError(f"{path}: has no {', '.join(missing)}; it has {', '.join(tables.elements)}")
    try:
        eam = TabulatedEAM(wanted, tables.cutoff, tables.form, **tables.grid)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    where = [tables.elements.index(symbol) for symbol in wanted]
    for row, (a, b) in enumerate(eam.pairs):
        eam.pair_table[row] = tables.pair[max(where[a], where[b]), min(where[a], where[b])]
    for a, source in enumerate(where):
        eam.embedding_table[a] = tables.embedding[source]
        if tables.form == "alloy":
            eam.density_table[a] = tables.density[source, 0]
            continue
        for c, centre in enumerate(where):
            eam.density_table[a, c] = tables.density[source, centre]
    return eam


def _lines(path: str | os.PathLike[str]) -> list[str]:
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if not content.strip():
        raise InputError(f"{path}: is empty")
    if b"\0" in content:
        raise InputError(f"{path}: is a binary file, not setfl tables")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = content.decode("latin-1")  # names of authors in old files
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


class _Reader:
    """Goes through the lines after the comments."""

    def __init__(self, path: str | os.PathLike[str], lines: list[str]) -> None:
        self.path, self.lines, self.at = path, lines, COMMENTS

    def fail(self, message: str) -> NoReturn:
        raise InputError(f"{self.path}: line {min(self.at, len(self.lines))}: {message}")

    def words(self) -> list[str] | None:
        """Words of the next line that has any, None at the end; ``at`` is then its number, counted from 1."""
        while self.at < len(self.lines):
            self.at += 1
            found = self.lines[self.at - 1].partition("#")[0].split()
            if found:
                return found
        return None

    def elements(self) -> list[str]:
        words = self.words()
        if words is None:
            self.fail("the file ends before its elements; setfl has three lines of comments, then the elements")
        if not words[0].isdecimal() or int(words[0]) != len(words) - 1 or len(words) < 2:
            hint = "the number of elements and their symbols should stand here, as in '2 Ni Al'"
            if self._is_funcfl():
                hint = "this is a funcfl file (pair_style eam), not setfl; convert it to setfl first"
            self.fail(hint)
        if len(set(words[1:])) < len(words) - 1:
            self.fail("an element is named twice")
        return words[1:]

    def _is_funcfl(self) -> bool:
        """Element on line 2, grid on line 3, and nothing but numbers after that."""
        return len(self.lines) > 3 and len(self.lines[2].split()) == 5 and _number(self.lines[2].split()[0]) is not None

    def grid(self) -> tuple[dict[str, Any], float]:
        words = self.words() or []
        values = [_number(word) for word in words]
        if len(values) != 5 or not all(value is not None and math.isfinite(value) for value in values):
            self.fail("five numbers should stand here: Nrho drho Nr dr cutoff")
        points_rho, step_rho, points_r, step_r, cutoff = (float(value or 0.0) for value in values)
        for name, count in (("Nrho", points_rho), ("Nr", points_r)):
            if count != int(count) or count < 5:
                self.fail(f"{name} is {count:g}; a whole number of at least 5 is expected")
        for name, length in (("drho", step_rho), ("dr", step_r), ("the cutoff", cutoff)):
            if not length > 0:
                self.fail(f"{name} is {length:g}; it must be positive")
        if (points_r - 1 + SHORT) * step_r < cutoff:
            self.fail(
                f"the tables end at {(points_r - 1) * step_r:g} Å, well before the cutoff of {cutoff:g} Å; "
                f"one of Nr, dr and the cutoff is wrong"
            )
        grid = {"points_r": int(points_r), "step_r": step_r, "points_rho": int(points_rho), "step_rho": step_rho}
        return grid, cutoff

    def element_line(self, symbol: str) -> str:
        """Mass, lattice constant and lattice; the atomic number before them is not used."""
        words = self.words() or []
        mass = _number(words[1]) if len(words) > 1 else None
        if mass is None or not 0 < mass < math.inf or _number(words[0]) is None:
            self.fail(f"number, mass, lattice constant and lattice of {symbol} should stand here")
        return " ".join(words[1:])

    def table(self, count: int, name: str) -> Tensor:
        """The next ``count`` values."""
        values: list[float] = []
        while len(values) < count:
            words = self.words()
            if words is None:
                self.fail(f"the file ends in the {name}, after {len(values)} of {count} values")
            for word in words:
                value = _number(word)
                if value is None:
                    self.fail(f"'{word}' is not a number ({name}, after {len(values)} of {count} values)")
                if not math.isfinite(value):
                    self.fail(f"'{word}' is not finite ({name})")
                values.append(value)
        if len(values) > count:
            self.fail(
                f"the {name} ends within this line, {len(values) - count} values before its end; every table starts on "
                f"a new line, so values are missing or too many here or before"
            )
        return torch.tensor(values, dtype=torch.float64)

    def end(self) -> None:
        words = self.words()
        if words is not None:
            self.fail(f"'{words[0]}' follows the last table; the file has more values than its header says")


def _number(word: str) -> float | None:
    """A number as C or Fortran write it."""
    if "_" in word:  # Python's own notation
        return None
    try:
        return float(word)
    except ValueError:
        try:
            return float(word.lower().replace("d", "e"))
        except ValueError:
            return None
