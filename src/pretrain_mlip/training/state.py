"""What a training leaves in its folder."""

from __future__ import annotations

import csv
import io
import logging
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pretrain_mlip import keys
from pretrain_mlip.errors import InputError
from pretrain_mlip.files import make_folder, refused_writes, write_text
from pretrain_mlip.potentials.checkpoint import read_checkpoint, write_checkpoint
from pretrain_mlip.settings import changes, flattened
from pretrain_mlip.training.settings import WITHOUT_EFFECT

log = logging.getLogger(__name__)
Row = dict[str, Any]  # numbers by column
UNHARMED = "the checkpoint before is unharmed: make room, then resume"


class TrainingFolder:
    """``last.pt``, the one before it, ``best.pt`` and ``log.csv``."""

    def __init__(self, path: Path) -> None:
        """Make the folder.

        Raises:
            InputError: it cannot be written to.
        """
        self.path = make_folder(path)
        self.last, self.before, self.best = path / "last.pt", path / "before.pt", path / "best.pt"
        self.log = path / "log.csv"

    def write_last(self, content: dict[str, Any], history: Sequence[Row]) -> None:
        """Move a state into place; the one that was there stays beside it until the next.

        Raises:
            ComputationError: the disk is full, or cannot be written to; what was there is unharmed.
        """
        with refused_writes(self.last, UNHARMED):
            temporary = self.path / "next.pt"
            write_checkpoint(temporary, content)
            if self.last.exists():
                self.last.replace(self.before)
            temporary.replace(self.last)
            write_text(self.log, to_csv(history))

    def write_best(self, content: dict[str, Any]) -> None:
        """Move a potential into place.

        Raises:
            ComputationError: as for ``write_last``.
        """
        with refused_writes(self.best, UNHARMED):
            write_checkpoint(self.best, content)

    def read_last(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest state that can be read, with its file; None where no training has begun.

        Raises:
            InputError: there are states, but none that can be read.
        """
        troubles = []
        for path in (self.last, self.before):
            if not path.exists():
                continue
            try:
                state = _state_of(path)
            except InputError as error:
                troubles.append(error)
                continue
            for trouble in troubles:
                log.warning("%s; going on from %s, which was written before it", trouble, path.name)
            if path == self.before and not troubles:
                log.warning("%s is missing; going on from %s, which was written before it", self.last, path.name)
            return path, state
        if troubles:
            raise InputError(f"{troubles[0]}; remove {self.path} to train anew")
        return None


def _state_of(path: Path) -> dict[str, Any]:
    state = read_checkpoint(path).get("training")
    if state is None:
        raise InputError(f"{path}: holds no state of a training to resume from")
    return state


def is_finished(path: Path) -> bool:
    """Whether the training in a folder has reached its end.

    Raises:
        InputError: it has, but what it ended with is gone.
    """
    if not (path / "last.pt").exists():
        return False
    try:
        state = read_checkpoint(path / "last.pt").get("training")
    except InputError:  # damaged: the training will say so, and go on from the state before
        return False
    if state is None or not state["finished"]:
        return False
    read_best(path / "best.pt")
    return True


def read_best(path: Path) -> dict[str, Any]:
    """The best potential of a training.

    Raises:
        InputError: it is gone or damaged, and no other file has it.
    """
    try:
        return read_checkpoint(path)
    except InputError as error:
        raise InputError(
            f"{error}; it was the best so far, and no other file has it: remove {path.parent} to train anew"
        ) from None


def refuse_another(path: Path, state: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse a state from which a training would not end as the uninterrupted one does.

    Args:
        path: of the state, for messages.
        state: as it was written.
        now: what identifies the training: ``settings``, ``network`` and whatever else has the names that the state has,
            and ``structures``, a hash.

    Raises:
        InputError: settings, the network or structures are others; names what differs.
    """
    if "identity" not in state:
        raise InputError(f"{path}: was written by an earlier version; remove {path.parent} to train anew")
    old, new = (_named(found) for found in (state["identity"], now))
    if found := changes(old, new):
        raise InputError(
            f"{path}: belongs to another training ({found}); resume with the same, or choose another folder"
        )
    if state["identity"]["structures"] != now["structures"]:
        raise InputError(
            f"{path}: the structures, their labels or their weights have changed since; resume with the same, or "
            "choose another folder"
        )


def _named(identity: dict[str, Any]) -> dict[str, Any]:
    found = {**identity, **identity.get("settings", {})}  # settings by their own names
    flat = flattened({key: value for key, value in found.items() if key not in ("settings", "structures")})
    return {key: value for key, value in flat.items() if key not in WITHOUT_EFFECT}


def to_csv(history: Sequence[Row]) -> str:
    """One line per epoch."""
    columns = list(dict.fromkeys(name for row in history for name in row))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, restval="")
    writer.writeheader()
    writer.writerows(history)
    return stream.getvalue()


def note_of(row: Row) -> str:
    """A row for people."""
    parts = [f"loss {row['loss']:.4f}"] if math.isfinite(row["loss"]) else []
    if "val_energy_mae" in row:
        parts.append(f"val E {1e3 * row['val_energy_mae']:.1f} meV/atom")
    if "val_forces_mae" in row:
        parts.append(f"F {1e3 * row['val_forces_mae']:.0f} meV/Å")
    return ", ".join(parts)


def last_note(path: Path) -> tuple[int, str]:
    """Epochs that a log.csv has, and ``note_of`` the newest with its newest validation; nothing where there is none."""
    if not path.exists():
        return 0, ""
    with path.open(newline="") as stream:
        rows = [{name: float(text) for name, text in row.items() if text} for row in csv.DictReader(stream)]
    newest: Row = {}
    for row in rows:
        newest |= row
    return len(rows), note_of(newest) if newest else ""


def note_of_kinds(row: Row, kinds: Iterable[str]) -> str:
    """Energy and force errors of a row for each kind; empty where there is one kind."""
    parts = []
    for kind in kinds:
        errors = [row.get(f"val_{name}_mae[{kind}]", math.nan) for name in (keys.ENERGY, keys.FORCES)]
        if any(map(math.isfinite, errors)):
            parts.append(f"{kind} {1e3 * errors[0]:.1f}, {1e3 * errors[1]:.0f}")
    return "; ".join(parts)
