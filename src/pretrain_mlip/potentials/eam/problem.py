"""What an EAM is fitted to: structures and their labels, and the loss of an EAM against them.

Residuals are divided by the spread of their labels and enter a pseudo-Huber loss, so that a few very hot frames do not
decide the fit. E0s that are not known are linear and solved inside every evaluation. Neighbours are searched, and
looked up in the tables of the EAM's functions, once; an evaluation then costs some products and sums per pair.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from ase import Atoms
from torch import Tensor

from pretrain_mlip import keys
from pretrain_mlip.graphs.graph import make_graph
from pretrain_mlip.potentials.eam.embedded_atom import EmbeddedAtom, half_list_sums
from pretrain_mlip.potentials.eam.pairs import CHUNK, Pairs, PairSums
from pretrain_mlip.potentials.eam.settings import EAMSettings


class Scales(NamedTuple):
    """Spreads that residuals are divided by: eV/atom, eV/Å, eV/Å³."""

    energy: float
    forces: float
    stress: float


class Prediction(NamedTuple):
    """Energies without E0s in eV/atom (B,), forces in eV/Å (N, 3), stress in eV/Å³ (B, 6)."""

    energy: Tensor
    forces: Tensor
    stress: Tensor


class Problem:
    """Structures with labels, and everything that does not change during a fit."""

    def __init__(self, eam: EmbeddedAtom, frames: Sequence[Atoms], known_e0: Mapping[str, float] | None = None) -> None:
        """Search neighbours within the cutoff of ``eam`` and collect labels; ``known_e0`` (eV) are not fitted."""
        chunks: list[Pairs] = []
        labels, types, counts, volumes = [], [], [], []
        functions, atoms = eam.functions(), 0
        for number, frame in enumerate(frames):
            graph = make_graph(frame, eam.cutoff, labels=True, half=True)
            types.append(eam.types(graph[keys.ATOMIC_NUMBERS]))
            structure = torch.tensor([number])
            for pairs in half_list_sums(functions, types[-1], graph).chunks:
                shifted = pairs._replace(first=pairs.first + atoms, second=pairs.second + atoms)
                chunks.append(shifted._replace(structure=structure.expand_as(pairs.first)))
            atoms += len(frame)
            counts.append(len(frame))
            volumes.append(graph[keys.VOLUME])
            labels.append({name: graph[name] for name in (*keys.LABELS, keys.CONFIG_WEIGHT)})
        self.sums = PairSums(list(_joined(chunks)), atoms, len(frames))
        self.types = torch.cat(types)
        self.atoms = torch.tensor(counts, dtype=torch.float64)
        self.volume = torch.cat(volumes)

        def joined(name: str) -> Tensor:
            return torch.cat([part[name] for part in labels])

        self.batch = torch.repeat_interleave(torch.arange(len(frames)), torch.tensor(counts))
        self.energy = joined(keys.ENERGY) / self.atoms
        self.forces, self.stress, self.weight = joined(keys.FORCES), joined(keys.STRESS), joined(keys.CONFIG_WEIGHT)
        self.has_forces = torch.isfinite(self.forces).all(1)
        self.has_stress = torch.isfinite(self.stress).all(1) & torch.isfinite(self.volume)

        composition = torch.zeros((len(frames), len(eam.elements)), dtype=torch.float64)
        composition.index_put_((self.batch, self.types), torch.ones(atoms, dtype=torch.float64), accumulate=True)
        self.composition = composition / self.atoms[:, None]  # (B, S) share of each element
        known = [(known_e0 or {}).get(symbol) for symbol in eam.elements]
        self.known_e0 = torch.tensor([value or 0.0 for value in known], dtype=torch.float64)
        self.free = self.composition * torch.tensor([value is None for value in known])
        # Weighted least squares: energies per atom -> E0s that are not known. The relative cut-off keeps directions
        # that no frame determines (SiO2 only, say) at the smallest E0s.
        root = self.weight.sqrt()
        self.solver = torch.linalg.pinv(self.free * root[:, None], rtol=1e-8) * root
        self.latest: dict[str, float | None] = {}  # root-mean-square residuals of the last loss: eV/atom, eV/Å
        self.scales = Scales(
            max(self.constant_error() or 0.0, 5e-3),
            max(rms(self.forces[self.has_forces]) or 0.0, 5e-2),
            max(rms(self.stress[self.has_stress]) or 0.0, 1e-3),
        )

    def distances(self, eam: EmbeddedAtom) -> dict[tuple[int, int], tuple[float, float]]:
        """Pair of types, the smaller first -> shortest and longest distance (Å) within the cutoff of ``eam``."""
        low = torch.full((len(eam.elements) ** 2,), torch.inf, dtype=torch.float64)
        high = torch.zeros_like(low)
        for chunk in self.sums.chunks:
            kinds = torch.stack([self.types[chunk.first], self.types[chunk.second]]).sort(dim=0).values
            place, distance = kinds[0] * len(eam.elements) + kinds[1], 1.0 / chunk.inverse
            low.scatter_reduce_(0, place, distance, "amin")
            high.scatter_reduce_(0, place, distance, "amax")
        both = {(a, b): a * len(eam.elements) + b for a, b in eam.pairs}
        return {pair: (float(low[n]), float(high[n])) for pair, n in both.items() if torch.isfinite(low[n])}

    def nearest(self, eam: EmbeddedAtom) -> dict[tuple[int, int], float]:
        """Pair of types, the smaller first -> distance (Å) to the nearest neighbour of that type, mean over atoms."""
        count = len(eam.elements)
        nearest = torch.full((len(self.types) * count,), torch.inf, dtype=torch.float64)
        for chunk in self.sums.chunks:
            for here, there in ((chunk.first, chunk.second), (chunk.second, chunk.first)):
                nearest.scatter_reduce_(0, here * count + self.types[there], 1.0 / chunk.inverse, "amin")
        nearest = nearest.reshape(-1, count)
        found = {}
        for a, b in eam.pairs:
            both = torch.cat([nearest[self.types == a, b], nearest[self.types == b, a]])
            both = both[torch.isfinite(both)]
            if len(both):
                found[a, b] = float(both.mean())
        return found

    def predict(self, eam: EmbeddedAtom) -> Prediction:
        """Of all structures, in their order; differentiable with respect to the parameters."""
        functions = eam.tabulate()
        density, energies = self.sums.before(functions)
        embedded, slope = eam.embedding(self.types, density)
        forces, strain_derivative = self.sums.after(functions, slope, virial=bool(self.has_stress.any()))
        energy = torch.zeros_like(self.atoms).index_add(0, self.batch, energies + embedded) / self.atoms
        volume = torch.where(torch.isfinite(self.volume), self.volume, torch.inf)  # keeps gradients finite
        return Prediction(energy, forces, strain_derivative / volume[:, None])

    def densities(self, eam: EmbeddedAtom) -> Tensor:
        """(N,) the density at every atom."""
        with torch.no_grad():
            return self.sums.before(eam.tabulate())[0]

    def has_terms(self, settings: EAMSettings) -> bool:
        """Whether a label that some structure has counts for anything."""
        shares = (
            (settings.energy_weight, torch.isfinite(self.energy)),
            (settings.forces_weight, self.has_forces),
            (settings.stress_weight, self.has_stress),
        )
        return any(share > 0 and bool(there.any()) for share, there in shares)

    def loss(self, eam: EmbeddedAtom, settings: EAMSettings) -> Tensor:
        """Weighted pseudo-Huber loss, with the best E0s and, where asked for, the best offset of the stress labels."""
        energy, forces, stress = self.predict(eam)
        energy = self._beyond_e0(energy)[:, None]
        forces = (forces - self.forces)[self.has_forces]
        stress = (stress - self.stress)[self.has_stress]
        if settings.stress_offset:
            stress = stress - self._offset(stress)
        self.latest = {"energy": rms(energy.detach()), "forces": rms(forces.detach())}
        terms = (
            (settings.energy_weight, energy, self.scales.energy, self.weight),
            (settings.forces_weight, forces, self.scales.forces, self.weight[self.batch][self.has_forces]),
            (settings.stress_weight, stress, self.scales.stress, self.weight[self.has_stress]),
        )
        loss = energy.new_zeros(())
        for share, values, scale, of_frame in terms:
            if share > 0 and values.numel():
                loss = loss + share * (_pseudo_huber(values / scale, settings.huber).mean(1) * of_frame).mean()
        return loss

    def _offset(self, stress: Tensor) -> Tensor:
        """(6,) the isotropic part of the mean residual of the stress."""
        weight = self.weight[self.has_stress]
        mean = (stress[:, :3].mean(1) * weight).sum() / weight.sum().clamp(min=1e-300)
        return mean * torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0], dtype=torch.float64)

    def stress_offset(self, eam: EmbeddedAtom) -> float | None:
        """What the stress of ``eam`` is above the labels on average (eV/Å³, isotropic); None without labels."""
        if not self.has_stress.any():
            return None
        with torch.no_grad():
            return float(self._offset((self.predict(eam).stress - self.stress)[self.has_stress])[0])

    def best_e0(self, eam: EmbeddedAtom) -> Tensor:
        """(S,) eV: the known ones, and those of the weighted least squares."""
        with torch.no_grad():
            rest = self.energy - self.composition @ self.known_e0 - self.predict(eam).energy
            return self.known_e0 + self.solver @ rest

    def errors(self, eam: EmbeddedAtom) -> dict[str, float | None]:
        """Root-mean-square errors: energy_rmse (eV/atom), forces_rmse and forces_rms (eV/Å), stress_rmse (eV/Å³)."""
        with torch.no_grad():
            energy, forces, stress = self.predict(eam)
        reference = self.forces[self.has_forces]
        return {
            "energy_rmse": rms(energy + self.composition @ eam.e0 - self.energy),
            "forces_rmse": rms(forces[self.has_forces] - reference),
            "forces_rms": rms(reference),
            "stress_rmse": rms((stress - self.stress)[self.has_stress]),
        }

    def constant_error(self) -> float | None:
        """Error of a constant per element, eV/atom: what an EAM must beat. All E0s are free here."""
        solver = torch.linalg.pinv(self.composition, rtol=1e-8)
        return rms(self.energy - self.composition @ (solver @ self.energy))

    def _beyond_e0(self, energy: Tensor) -> Tensor:
        """(B,) eV/atom: label minus energy minus the best E0s."""
        rest = self.energy - self.composition @ self.known_e0 - energy
        return rest - self.free @ (self.solver @ rest)


def _joined(chunks: Sequence[Pairs]) -> Iterator[Pairs]:
    """Chunks of small structures joined to larger ones: fewer calls."""
    some: list[Pairs] = []
    for number, pairs in enumerate(chunks):
        some.append(pairs)
        if number + 1 == len(chunks) or sum(len(part.u) for part in [*some, chunks[number + 1]]) > 2 * CHUNK:
            yield Pairs(*(torch.cat(arrays) for arrays in zip(*some, strict=True)))  # type: ignore[arg-type]
            some = []


def _pseudo_huber(values: Tensor, delta: float) -> Tensor:
    return 2.0 * delta**2 * (torch.sqrt(1.0 + (values / delta).square()) - 1.0)


def rms(values: Tensor) -> float | None:
    """Root mean square; None of nothing."""
    return float(values.square().mean().sqrt()) if values.numel() else None
