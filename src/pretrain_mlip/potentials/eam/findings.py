"""What the report of an EAM says, whether it was fitted or published."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from pretrain_mlip.potentials.eam.audit import Ranges, audit
from pretrain_mlip.potentials.eam.embedded_atom import EmbeddedAtom
from pretrain_mlip.potentials.eam.problem import Problem

log = logging.getLogger(__name__)


def findings(
    eam: EmbeddedAtom,
    problem: Problem,
    seen: Ranges,
    known: Mapping[str, float],
) -> dict[str, Any]:
    """Errors on the structures of a problem, the audit, what was known; ``seen`` as ``Problem.distances`` has it."""
    curves = audit(eam, seen)
    attracting = [pair for pair, found in curves.items() if not found["repulsive"]]
    if attracting:
        log.warning("EAM: %s does not repel everywhere inside contact", ", ".join(attracting))
    return {
        "frames": len(problem.energy),
        "baseline_energy_rmse": problem.constant_error(),
        "known_e0": {symbol: known[symbol] for symbol in eam.elements if symbol in known},
        "unseen_pairs": [eam.pair_name(*pair) for pair in eam.pairs if pair not in seen],
        "audit": curves,
        "train": problem.errors(eam),
        "stress_offset": problem.stress_offset(eam),
    }
