"""The course of a training for TensorBoard."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pretrain_mlip.errors import InputError


class Board:
    """Event files with a curve for every number of ``log.csv``, over gradient steps.

    They are made anew from the history whenever a training starts or is resumed, so that nothing is there twice.
    """

    def __init__(self, folder: Path, history: Sequence[dict[str, Any]]) -> None:
        """Write what has been so far.

        Raises:
            InputError: TensorBoard is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError(
                f"training.tensorboard needs TensorBoard ({error}): pip install tensorboard, or leave the setting out"
            ) from None
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
