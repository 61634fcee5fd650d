"""Options of a training; free of torch, so that help is fast."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from pretrain_mlip.settings import Settings

StrategyName = Literal["vanilla", "sam", "pretrain", "finetune", "replay", "delta"]  # see training/strategies.py
Cost = Literal["huber", "l2", "l1"]
ElementMatch = Literal["same", "subset", "any"]
WITHOUT_EFFECT = frozenset({"checkpoint_minutes", "tensorboard"})  # settings that change no result


class TermSettings(Settings):
    """One part of the loss. A number in place of this group means ``weight``."""

    weight: float = Field(default=1.0, ge=0, description="weight in the loss")
    final_weight: float | None = Field(
        default=None, ge=0, description="weight at the end of the training, reached along a line; null: it stays"
    )
    kind: Cost | None = Field(default=None, description="cost of a residual; null: that of the loss")

    @property
    def used(self) -> bool:
        """Whether it ever has a weight."""
        return self.weight > 0 or bool(self.final_weight)

    def at(self, progress: float) -> float:
        """The weight at a progress from 0 to 1."""
        return self.weight if self.final_weight is None else self.weight + progress * (self.final_weight - self.weight)


class StressTermSettings(TermSettings):
    """The part of the loss that stress is; as for the others, but for its weight."""

    weight: float = Field(default=0.1, ge=0, description="weight in the loss")


def _as_weight(value: Any) -> Any:
    return {"weight": value} if isinstance(value, int | float) else value


Term = Annotated[TermSettings, BeforeValidator(_as_weight)]
StressTerm = Annotated[StressTermSettings, BeforeValidator(_as_weight)]


class LossSettings(Settings):
    """Weighted loss. Residuals are divided by the energy scale of the network, so that weights have no unit."""

    kind: Cost = Field(
        default="huber", description="huber: square near zero and linear far out; l2: square; l1: absolute value"
    )
    huber_delta: float = Field(
        default=0.03, gt=0, description="residual, in units of the scale, where huber turns linear"
    )
    energy: Term = Field(default_factory=TermSettings, description="energy per atom")
    forces: Term = Field(default_factory=TermSettings, description="force components")
    stress: StressTerm = Field(
        default_factory=StressTermSettings, description="stress times volume per atom, where there is stress"
    )

    @model_validator(mode="after")
    def _something_counts(self) -> LossSettings:
        if not (self.energy.used or self.forces.used or self.stress.used):
            raise ValueError("energy, forces and stress all have no weight; give one of them some")
        return self


class TrainingSettings(Settings):
    """One training."""

    epochs: int = Field(default=60, ge=1, description="passes over the training structures")
    batch_size: int = Field(default=2, ge=1, description="structures per gradient step, of all processes together")
    max_edges: int | None = Field(
        default=None,
        ge=1,
        description="edges per gradient step, above which a batch is closed earlier; null: any number",
    )
    learning_rate: float | None = Field(
        default=None, gt=0, description="highest learning rate of AdamW; null: that of the architecture"
    )
    weight_decay: float = Field(default=1e-3, ge=0, description="weight decay of AdamW")
    warmup_epochs: float = Field(default=2.0, ge=0, description="epochs of linear warm-up")
    schedule: Literal["cosine", "plateau", "constant"] = Field(
        default="cosine", description="learning rate after the warm-up; plateau lowers it where the metric stands still"
    )
    final_learning_rate: float = Field(
        default=0.01, ge=0, le=1, description="lowest learning rate of cosine and plateau, of the highest"
    )
    plateau_factor: float = Field(default=0.5, gt=0, lt=1, description="what plateau multiplies the learning rate by")
    plateau_patience: int = Field(default=10, ge=0, description="validations that plateau waits for an improvement")
    ema_decay: float = Field(
        default=0.99, ge=0, lt=1, description="decay per step of the averaged weights that are validated and kept"
    )
    clip: float = Field(default=10.0, gt=0, description="largest norm of the gradient")
    sam_rho: float | None = Field(
        default=None, gt=0, description="radius of sharpness-aware steps, which cost two; null: ordinary steps"
    )
    patience: int | None = Field(
        default=None, ge=1, description="stop after so many epochs without improvement; null never stops early"
    )
    metric: Literal["forces", "energy", "stress"] = Field(
        default="forces", description="validation error that chooses the best epoch"
    )
    dtype: Literal["float32", "float64"] = Field(default="float32", description="precision of the network")
    compile: bool = Field(default=False, description="compile the network: worth its minutes in long trainings")
    products: Literal["full", "tf32", "bfloat16"] = Field(
        default="full", description="precision of products of matrices; tf32 and bfloat16 are for GPUs"
    )
    validate_every: int = Field(default=1, ge=1, description="epochs between validations")
    checkpoint_minutes: float = Field(
        default=10.0, gt=0, description="minutes after which last.pt is written within an epoch too"
    )
    tensorboard: bool = Field(default=False, description="write the curves of log.csv for TensorBoard too")
    loss: LossSettings = Field(default_factory=LossSettings, description="the loss")


class ReplaySettings(Settings):
    """Perturbed structures of the pretraining, with their EAM labels, that join the batches of a training on DFT."""

    share: float = Field(
        default=0.25,
        gt=0,
        lt=1,
        description="share of a batch that they are, in whole structures and at least one: one beside the two of the "
        "default batch_size",
    )
    weight: float = Field(default=0.1, gt=0, description="weight of each in the loss, beside config_weight")

    def size(self, batch_size: int) -> int:
        """How many join so many others: at least one."""
        return max(1, round(batch_size * self.share / (1.0 - self.share)))


class SAMSettings(Settings):
    """Sharpness-aware minimisation, of the strategy ``sam``."""

    rho: float = Field(default=0.001, gt=0, description="radius of a step uphill, relative to the weights")
