"""Structures and their labels from any file that ASE reads, in one form; and to extended XYZ.

Units: eV, Å, eV/Å³. Frames are numbered from 0, as ASE does.
"""

from __future__ import annotations

import copy
import gzip
import io
import logging
import os
from collections import Counter, defaultdict
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.io.extxyz import write_xyz

from pretrain_mlip.errors import InputError
from pretrain_mlip.files import atomic_path
from pretrain_mlip.keys import (
    CONFIG_TYPE,
    CONFIG_WEIGHT,
    ENERGY,
    FORCES,
    ISOLATED_ATOM,
    LABELS,
    PARENT,
    SPLIT,
    STRUCTURE_ID,
)
from pretrain_mlip.structures.labels import (
    LabelKeys,
    Labels,
    find_labels,
    labels_of,
    remove_label_keys,
    set_labels,
)
from pretrain_mlip.structures.readers import read_frames

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "LabelKeys",
    "Labels",
    "check_extxyz_name",
    "labels_of",
    "name_of",
    "read_structures",
    "set_labels",
    "write_structures",
]

logger = logging.getLogger(__name__)
AnyPath = str | os.PathLike[str]
SOURCE = "_source"  # info key with the file and frame, for messages; never written to a file
_TEXT_KEYS = (CONFIG_TYPE, SPLIT, PARENT, STRUCTURE_ID)  # extxyz turns "300" into a number; these stay words


def read_structures(
    source: AnyPath | Atoms | Sequence[AnyPath] | Sequence[Atoms],
    *,
    keys: LabelKeys | None = None,
    require: Sequence[str] = (ENERGY, FORCES),
    index: str = ":",
) -> list[Atoms]:
    """Read structures and bring their labels to one form.

    A label is looked for under REF_energy, REF_forces, REF_stress or REF_virials, then under the names in ``keys``,
    then among the results of the ASE calculator (or under these names in ``info`` and ``arrays``). Other results of a
    calculator, such as magnetic moments, are left behind. A stress may be 6 (Voigt), 9 or 3x3 numbers.

    Args:
        source: one or several files (extxyz, also gzipped; ASE databases; anything else that ASE reads), or structures,
            which are copied.
        keys: names of labels in these files.
        require: labels that every frame must have; an isolated atom needs an energy only.
        index: frames to take from every file, as ASE writes it: ":", "-1", "::10".

    Returns:
        New structures whose calculator holds the labels found and nothing else (see ``labels_of``). ``info`` keeps all
        that is not a label.

    Raises:
        InputError: a file is missing, empty or unreadable, a required label or a named key is missing, or a number is
            not finite or of the wrong shape; the message names file and frame.
    """
    keys = keys or LabelKeys()
    unknown = [label for label in require if label not in LABELS]
    if unknown:
        raise InputError(f"'{unknown[0]}' is not a label that can be required; known: {', '.join(LABELS)}")
    frames: list[Atoms] = []
    seen: set[str] = set()
    origins: dict[str, Counter[str]] = defaultdict(Counter)
    for atoms in _all_frames(source, index):
        results = _results(atoms)
        seen.update(atoms.info, atoms.arrays, results)
        frame, origin = _normalised(atoms, keys, results, name_of(atoms, len(frames)))
        for label, key in origin.items():
            origins[label][key] += 1
        frames.append(frame)
    if not frames:
        raise InputError("no structures: an empty list, or an index that selects no frame")
    _refuse_unknown_keys(frames, keys, seen)
    _refuse_missing(frames, require, seen)
    for label, counts in origins.items():
        if len(counts) > 1:
            parts = ", ".join(f"{key} ({count})" for key, count in counts.items())
            logger.warning("%s: labels come from several keys: %s; are they of one method?", label, parts)
    return frames


def write_structures(path: AnyPath, frames: Sequence[Atoms]) -> None:
    """Write structures with their labels as extended XYZ, gzipped where the name ends in .gz.

    Energies, stresses and cells keep all digits; positions, forces and other per-atom numbers are written by ASE with
    eight decimals, so they come back within 5e-9 Å and 5e-9 eV/Å.

    Raises:
        InputError: there is nothing to write, the name is of another format, or the folder cannot be written to.
    """
    check_extxyz_name(path)
    if not frames:
        raise InputError(f"{path}: no structures to write")
    with atomic_path(path) as temporary, temporary.open("wb") as file, _packed(path, file) as stream:
        for atoms in frames:
            write_xyz(stream, _for_writing(atoms))


def check_extxyz_name(path: AnyPath) -> None:
    """Refuse a name by which readers would take extended XYZ for another format.

    Raises:
        InputError: it does not end in .extxyz or .xyz, .gz after it or not.
    """
    if Path(path).with_suffix("" if Path(path).suffix == ".gz" else Path(path).suffix).suffix not in (
        ".extxyz",
        ".xyz",
    ):
        raise InputError(f"{path}: extended XYZ is written; let the name end in .extxyz or .xyz (.gz may follow)")


def name_of(atoms: Atoms, index: int | str) -> str:
    """Words for a message: file and frame where these are known, else the structure's id or its place in a list."""
    if SOURCE in atoms.info:
        return str(atoms.info[SOURCE])
    return f"structure {atoms.info.get(STRUCTURE_ID, index)}"


def _all_frames(source: Any, index: str) -> Iterator[Atoms]:
    items = [source] if isinstance(source, Atoms | str | os.PathLike) else source
    for item in items:
        if isinstance(item, Atoms):
            yield item
        elif isinstance(item, str | os.PathLike):
            for number, atoms in read_frames(Path(item), index):
                atoms.info[SOURCE] = f"{Path(item).name} frame {number}"
                yield atoms
        else:
            raise InputError(f"a file name or an ase.Atoms is expected, not a {type(item).__name__}")


def _results(atoms: Atoms) -> dict[str, Any]:
    """Results of the attached calculator, unless they belong to other positions, as those of a shared one do."""
    calc = atoms.calc
    results = dict(getattr(calc, "results", {}))
    if results and hasattr(calc, "check_state"):
        changed = set(calc.check_state(atoms)) & {"positions", "numbers", "cell", "pbc"}  # type: ignore[union-attr]
        if changed:
            logger.warning("calculator results ignored: they belong to other %s", ", ".join(sorted(changed)))
            return {}
    return results


def _normalised(atoms: Atoms, keys: LabelKeys, results: dict[str, Any], name: str) -> tuple[Atoms, dict[str, str]]:
    if len(atoms) == 0:
        raise InputError(f"{name}: no atoms")
    if not np.isfinite(atoms.positions).all():
        raise InputError(f"{name}: positions are not finite (NaN or infinity); remove this frame")
    if not np.isfinite(atoms.cell.array).all():
        raise InputError(f"{name}: the cell is not finite (NaN or infinity); remove this frame")
    labels, origin = find_labels(atoms, keys, results, name)
    frame = atoms.copy()
    frame.info = copy.deepcopy(atoms.info)
    remove_label_keys(frame, keys)
    frame.info.update({key: str(frame.info[key]) for key in _TEXT_KEYS if key in frame.info})
    if frame.info.get(CONFIG_TYPE, "").lower().replace("_", "") == ISOLATED_ATOM.lower():  # GAP sets: isolated_atom
        frame.info[CONFIG_TYPE] = ISOLATED_ATOM
    _check_weight(frame, name)
    if any(label is not None for label in labels):
        set_labels(frame, *labels)
    return frame, origin


def _check_weight(atoms: Atoms, name: str) -> None:
    weight = atoms.info.get(CONFIG_WEIGHT)
    if weight is None:
        return
    if isinstance(weight, bool) or not isinstance(weight, int | float | np.number) or not 0 <= weight < np.inf:
        shown = weight.item() if isinstance(weight, np.generic) else weight
        raise InputError(f"{name}: {CONFIG_WEIGHT} is {shown!r}; a number that is 0 or more is expected")


def _refuse_unknown_keys(frames: list[Atoms], keys: LabelKeys, seen: set[str]) -> None:
    for field, key in keys.named().items():
        if key not in seen:
            known = ", ".join(sorted(seen - {"numbers", "positions", SOURCE})) or "none"
            raise InputError(f"{field} '{key}': not in {name_of(frames[0], 0)} nor in any other; keys found: {known}")


def _refuse_missing(frames: list[Atoms], require: Sequence[str], seen: set[str]) -> None:
    for label in require:
        missing = [number for number, atoms in enumerate(frames) if _lacks(atoms, label)]
        if not missing:
            continue
        similar = sorted(key for key in seen if label[:5] in key.lower() and not key.startswith("REF_"))
        way = f"--keys {label}_key={similar[0]} (data.keys.{label}_key of a run)" if similar else ""
        hint = f"; does '{similar[0]}' hold it? Then name it: {way}" if similar else ""
        first = name_of(frames[missing[0]], missing[0])
        raise InputError(
            f"{first}: no {label} label ({len(missing)} of {len(frames)} frames have none){hint}; "
            f"expected REF_{label}, a key named by {label}_key, or '{label}' as ASE stores it"
        )


def _lacks(atoms: Atoms, label: str) -> bool:
    if label != ENERGY and atoms.info.get(CONFIG_TYPE) == ISOLATED_ATOM:
        return False
    return getattr(labels_of(atoms), label) is None


@contextmanager
def _packed(path: AnyPath, file: IO[bytes]) -> Iterator[IO[str]]:
    """A stream for text into a file of this name."""
    # No name and no time stamp in the header of gzip: equal frames make equal files.
    packed = gzip.GzipFile("", "wb", 6, file, mtime=0) if Path(path).suffix == ".gz" else nullcontext(file)
    with packed as binary, io.TextIOWrapper(binary, encoding="utf-8", newline="\n") as stream:  # type: ignore[type-var]
        yield stream


def _for_writing(atoms: Atoms) -> Atoms:
    labels = labels_of(atoms)
    written = atoms.copy()
    written.info.pop(SOURCE, None)
    for key, value in written.info.items():
        if isinstance(value, str):
            written.info[key] = " ".join(value.split("\n"))  # a line break would end the comment line
    if any(label is not None for label in labels):
        remove_label_keys(written, LabelKeys())
        set_labels(written, *labels)
    return written
