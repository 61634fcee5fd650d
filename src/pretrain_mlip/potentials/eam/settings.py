"""Options of the EAM and its fit; free of torch, so that help is fast."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from pretrain_mlip.settings import Settings


class EAMSettings(Settings):
    """The EAM and its fit."""

    form: Literal["alloy", "fs", "auto"] = Field(
        default="alloy",
        description="density per source element (setfl eam/alloy), per source and centre (eam/fs), or the one that "
        "errs less on held-out frames (alloy within 10 %)",
    )
    setfl: Path | None = Field(
        default=None,
        description="tables of a published potential (eam/alloy or eam/fs) in place of a fit; only E0s are fitted",
    )
    cutoff: float = Field(default=8.0, gt=0, description="cutoff, Å")
    energy_weight: float = Field(default=1.0, ge=0, description="weight of energies per atom, in units of their spread")
    forces_weight: float = Field(default=1.0, ge=0, description="weight of forces, in units of their root mean square")
    stress_weight: float = Field(default=1.0, ge=0, description="weight of stress, in units of its root mean square")
    stress_offset: bool = Field(
        default=False,
        description="let stress labels differ from the EAM by one constant pressure, as Pulay stress makes them",
    )
    huber: float = Field(
        default=1.0, gt=0, description="residual, in units of the spread, where the loss turns from square to linear"
    )
    prior: float = Field(
        default=0.02,
        ge=0,
        description="weight of the starting values against the labels, in structures: what few structures do not "
        "determine stays near them",
    )
    fixed: dict[str, dict[str, float]] = Field(
        default={}, description="parameters that stay at a value, as in {depth: {O-Si: 1.5}}; names are in eam.json"
    )
    bounds: dict[str, dict[str, tuple[float, float]]] = Field(
        default={}, description="parameters that stay within bounds, as in {minimum: {O-Si: [1.5, 1.8]}}"
    )
    shared: list[Annotated[list[str], Field(min_length=2)]] = Field(
        default=[], description="groups of parameters that have one value, as in [[decay.O, decay.Si]]"
    )
    warm_start: Path | None = Field(
        default=None, description="eam.json whose parameters the starts scatter about, the first without scatter"
    )
    starts: int = Field(default=4, ge=1, description="number of starts; all but the first are random")
    screening_frames: int = Field(default=24, ge=1, description="frames on which the starts are compared")
    screening_iterations: int = Field(default=60, ge=1, description="L-BFGS iterations of each start")
    max_iterations: int = Field(default=250, ge=1, description="L-BFGS iterations with all frames")
    seed: int = Field(default=0, ge=0, description="seed of the starts")
