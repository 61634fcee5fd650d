"""Potentials that tests export."""

from __future__ import annotations

from functools import cache
from typing import Any

from pretrain_mlip.potentials.base import Potential, ReferenceEnergies, SumPotential
from pretrain_mlip.potentials.ensemble import Ensemble
from pretrain_mlip.potentials.networks import build_model
from tests.conftest import ELEMENTS, hard_eam, lively, wide_zbl

MORE: dict[str, dict[str, Any]] = {"cgcnn": {"convolutions": 3}, "m3gnet": {"blocks": 2}, "torchmd_net": {"layers": 2}}
ORIGINS = ReferenceEnergies({"O": -430.0, "Si": -105.0})


def network(name: str, seed: int = 3, **more: Any) -> Potential:
    made = build_model(name, ELEMENTS, seed=seed, width=16, **{"cutoff": 4.5, **MORE[name], **more})
    return lively(made).eval().requires_grad_(False)


@cache
def potential_named(name: str) -> Potential:
    if name == "e0":
        return ORIGINS
    if name == "eam":
        return hard_eam()
    if name == "ensemble":
        return SumPotential([ORIGINS, Ensemble([network("cgcnn"), network("cgcnn", seed=4)])])
    if name.startswith("eam + "):
        return SumPotential([hard_eam(), network(name.removeprefix("eam + "))])
    return SumPotential([ORIGINS, wide_zbl(), network(name)])
