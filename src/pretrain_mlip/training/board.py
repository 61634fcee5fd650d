"""The course of a training for TensorBoard."""

from __future__ import annotations

import importlib.util
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pretrain_mlip.errors import InputError


def check_tensorboard() -> None:
    """Refuse what could not be written, before anything is computed.

    Raises:
        InputError: TensorBoard is not installed.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise InputError("the setting 'tensorboard' needs TensorBoard: pip install tensorboard, or leave it out")


class Board:
    """Event files with a curve for every number of ``log.csv``, over gradient steps.

    They are made anew from the history whenever a training starts or is resumed, so that nothing is there twice.
    """

    def __init__(self, folder: Path, history: Sequence[dict[str, Any]]) -> None:
        """Write what has been so far.

        Raises:
            InputError: see ``check_tensorboard``.
        """
        check_tensorboard()
        from torch.utils.tensorboard import SummaryWriter

        shutil.rmtree(folder, ignore_errors=True)
        self.writer = SummaryWriter(str(folder))
        for row in history:
            self.add(row)

    def add(self, row: dict[str, Any]) -> None:
        """One epoch."""
        for name, value in row.items():
            if name != "step" and math.isfinite(value):
                self.writer.add_scalar(name.replace("[", "/").rstrip("]"), value, row["step"])
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()
