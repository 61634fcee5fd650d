"""A published potential as the teacher: nothing is fitted but the E0s."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ase import Atoms

from pretrain_mlip.errors import InputError
from pretrain_mlip.potentials.eam.findings import findings
from pretrain_mlip.potentials.eam.inputs import elements_of, interacting, refuse_unlabelled
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
    known = known_reference_energies(frames, reference_energies)
    eam = read_setfl(settings.setfl, elements_of(frames))
    problem = Problem(eam, interacting(frames), known)
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
