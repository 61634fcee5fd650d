"""Reliable machine-learned interatomic potentials by physics-informed pretraining.

The public names are imported on first use, so that ``import pretrain_mlip`` costs nothing and does not load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pretrain_mlip.calculators.ase import PretrainedMLIP as PretrainedMLIP
    from pretrain_mlip.memory import keep_memory as keep_memory
    from pretrain_mlip.potentials.eam.fit import fit_eam as fit_eam
    from pretrain_mlip.potentials.eam.form import EAM as EAM
    from pretrain_mlip.potentials.networks import available_models as available_models
    from pretrain_mlip.potentials.networks import build_model as build_model
    from pretrain_mlip.structures.perturbation import perturb as perturb

__version__ = "0.1.0"

_HOMES = {
    "EAM": "pretrain_mlip.potentials.eam.form",
    "PretrainedMLIP": "pretrain_mlip.calculators.ase",
    "available_models": "pretrain_mlip.potentials.networks",
    "build_model": "pretrain_mlip.potentials.networks",
    "fit_eam": "pretrain_mlip.potentials.eam.fit",
    "keep_memory": "pretrain_mlip.memory",
    "perturb": "pretrain_mlip.structures.perturbation",
}
__all__ = ["EAM", "PretrainedMLIP", "available_models", "build_model", "fit_eam", "keep_memory", "perturb"]  # lazy


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
