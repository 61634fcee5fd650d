"""A published potential as the teacher: nothing is fitted but the E0s."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from ase import Atoms

from pretrain_mlip.errors import InputError
from pretrain_mlip.potentials.eam.findings import findings
from pretrain_mlip.potentials.eam.inputs import elements_of, interacting, refuse_unlabelled, weighted
from pretrain_mlip.potentials.eam.problem import Problem
from pretrain_mlip.potentials.eam.setfl_reading import read_setfl
from pretrain_mlip.potentials.eam.settings import EAMSettings
from pretrain_mlip.potentials.eam.tabulated import TabulatedEAM
from pretrain_mlip.structures.reference_energies import known_reference_energies


def adopt_setfl(
    frames: Sequence[Atoms],
    settings: EAMSettings,
    *,
    held_out: Sequence[Atoms] = (),
    reference_energies: Mapping[str, float] | None = None,
) -> TabulatedEAM:
    """The published potential of ``settings.setfl`` as it is, with the E0s that bring its energies closest to labels.

    Arguments, ``report`` and errors are those of ``fit_eam``, as far as they apply.
    """
    if settings.setfl is None:
        raise InputError("eam.setfl: no file is named")
    refuse_unlabelled(frames)
    _refuse_others(settings)
    known = known_reference_energies(frames, reference_energies)
    eam = read_setfl(settings.setfl, elements_of(frames))
    # A free atom has F(0) in the tables already
    free = eam.embedding(torch.arange(len(eam.elements)), torch.zeros(len(eam.elements), dtype=torch.float64))[0]
    above = {
        symbol: known[symbol] - float(value)
        for symbol, value in zip(eam.elements, free, strict=True)
        if symbol in known
    }
    problem = Problem(eam, weighted(frames), above)
    seen = problem.distances(eam)
    eam.e0.copy_(problem.best_e0(eam))
    eam.report |= {
        "settings": settings.model_dump(mode="json"),
        "start_losses": [],
        "starts": [],
        "loss": [],
        **findings(eam, problem, seen, known),
    }
    if held_out:
        eam.report["held_out"] = Problem(eam, interacting(held_out)).errors(eam)
    return eam


def _refuse_others(settings: EAMSettings) -> None:
    """Nothing is ignored silently: what is about a fit has no use here."""
    defaults = EAMSettings()
    names = ("form", "cutoff", "fixed", "bounds", "shared", "warm_start")
    idle = [f"eam.{name}" for name in names if getattr(settings, name) != getattr(defaults, name)]
    if idle:
        raise InputError(f"eam.setfl: nothing is fitted, so {', '.join(idle)} would have no effect; leave it out")
