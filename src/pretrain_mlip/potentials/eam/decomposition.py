"""The parts of an embedded-atom potential, pair by pair."""

from __future__ import annotations

import torch

from pretrain_mlip.potentials.eam.embedded_atom import EmbeddedAtom


def decompose_dimers(eam: EmbeddedAtom, points: int = 400, r_min: float = 0.5) -> dict[str, dict[str, list[float]]]:
    """The energy of every dimer split into its parts, relative to separated atoms.

    Returns:
        For each pair "A-B" lists of equal length: r (Å), density (both embedding energies), the terms of phi (morse and
        wall, or pair where there is one table), total, and atomic (E0s); eV.
    """
    distance = torch.linspace(r_min, eam.cutoff, points, dtype=torch.float64, device=eam.e0.device)
    result = {}
    with torch.no_grad():
        for a, b in eam.pairs:
            kinds = [torch.full((points,), kind, device=distance.device) for kind in (a, b)]
            free = sum(eam.embedding(kind, torch.zeros_like(distance))[0] for kind in kinds)
            embedded = eam.embedding(kinds[0], eam.density(b, a, distance)[0])[0]
            embedded = embedded + eam.embedding(kinds[1], eam.density(a, b, distance)[0])[0] - free
            terms = eam.pair_parts(a, b, distance)
            total = embedded + sum(terms.values())
            atomic = free + eam.e0[a] + eam.e0[b]
            parts = {"r": distance, "density": embedded, **terms, "total": total, "atomic": atomic}
            result[eam.pair_name(a, b)] = {name: value.tolist() for name, value in parts.items()}
    return result
