"""Options of a training; free of torch, so that help is fast."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pretrain_mlip.settings import Settings

StrategyName = Literal["vanilla", "pretrain", "finetune", "delta"]  # see training/stages.py


class LossSettings(Settings):
    """Weighted loss. Residuals are divided by the energy scale of the network, so that weights have no unit."""

    kind: Literal["huber", "mse", "mae"] = Field(default="huber", description="huber: square near zero, linear far out")
    huber_delta: float = Field(
        default=0.1, gt=0, description="residual, in units of the scale, where huber turns linear"
    )
    energy: float = Field(default=1.0, ge=0, description="weight of the energy per atom")
    forces: float = Field(default=1.0, ge=0, description="weight of force components")
    stress: float = Field(
        default=0.1, ge=0, description="weight of stress times volume per atom, where there is stress"
    )


class TrainingSettings(Settings):
    """One training."""

    epochs: int = Field(default=60, ge=1, description="passes over the training structures")
    batch_size: int = Field(default=2, ge=1, description="structures per gradient step")
    learning_rate: float = Field(default=1e-2, gt=0, description="highest learning rate of AdamW")
    weight_decay: float = Field(default=1e-3, ge=0, description="weight decay of AdamW")
    warmup_epochs: float = Field(default=2.0, ge=0, description="epochs of linear warm-up")
    schedule: Literal["cosine", "constant"] = Field(default="cosine", description="learning rate after the warm-up")
    final_learning_rate: float = Field(
        default=0.01, ge=0, le=1, description="learning rate at the end of the cosine, of the highest"
    )
    ema_decay: float = Field(
        default=0.99, ge=0, lt=1, description="decay per step of the averaged weights that are validated and kept"
    )
    clip: float = Field(default=10.0, gt=0, description="largest norm of the gradient")
    patience: int | None = Field(
        default=None, ge=1, description="stop after so many epochs without improvement; null never stops early"
    )
    metric: Literal["forces", "energy"] = Field(
        default="forces", description="validation error that chooses the best epoch"
    )
    compile: bool = Field(default=False, description="compile the network: worth its minutes in long trainings")
    products: Literal["full", "tf32", "bfloat16"] = Field(
        default="full", description="precision of products of matrices; tf32 and bfloat16 are for GPUs"
    )
    validate_every: int = Field(default=1, ge=1, description="epochs between validations")
    loss: LossSettings = Field(default_factory=LossSettings, description="the loss")
