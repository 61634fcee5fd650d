"""The learning rate over a training: a linear warm-up, then a cosine, a constant, or a fall where nothing improves."""

from __future__ import annotations

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from pretrain_mlip.training.settings import TrainingSettings

_START = 0.01  # epochs: the warm-up begins as if so much of it had passed, not at zero


class Schedule:
    """Sets the learning rate before every step, and after every validation."""

    def __init__(self, optimizer: Optimizer, settings: TrainingSettings) -> None:
        self.optimizer, self.settings = optimizer, settings
        self.highest = float(optimizer.defaults["lr"])
        self.epochs = 0.0  # passed, fractions included
        self.plateau = ReduceLROnPlateau(
            optimizer,
            factor=settings.plateau_factor,
            patience=settings.plateau_patience,
            min_lr=settings.final_learning_rate * self.highest,
        )

    @property
    def rate(self) -> float:
        """The learning rate now."""
        return float(self.optimizer.param_groups[0]["lr"])

    def step(self, epochs: float) -> None:
        """Go to a time, in epochs since the start."""
        was_warm, self.epochs = self.epochs >= self.settings.warmup_epochs, epochs
        if self.settings.schedule != "plateau" or not was_warm or epochs == 0:
            for group in self.optimizer.param_groups:
                group["lr"] = self.highest * self._factor()

    def validated(self, error: float) -> None:
        """Take note of a validation."""
        if self.settings.schedule == "plateau" and self.epochs >= self.settings.warmup_epochs:
            self.plateau.step(error if math.isfinite(error) else math.inf)

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs, "plateau": self.plateau.state_dict()}  # rates are in the optimizer's

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epochs = state["epochs"]
        self.plateau.load_state_dict(state["plateau"])

    def _factor(self) -> float:
        """Learning rate of the highest."""
        settings = self.settings
        if self.epochs < settings.warmup_epochs:
            return (self.epochs + _START) / (settings.warmup_epochs + _START)
        if settings.schedule != "cosine":
            return 1.0
        after = settings.epochs - settings.warmup_epochs
        progress = min(1.0, (self.epochs - settings.warmup_epochs) / after) if after > 0 else 1.0
        floor = settings.final_learning_rate
        return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * progress))
