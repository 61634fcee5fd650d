"""What an EAM is fitted to: structures and their labels, and the loss of an EAM against them.

Residuals are divided by the spread of their labels and enter a pseudo-Huber loss, so that a few very hot frames do not
decide the fit. E0s that are not known are linear and solved inside every evaluation. Forces and stress are analytic,
hence one backward pass gives the gradient.

Structures come in chunks of a bounded number of edges. Where there are several, the intermediate values of each are
computed a second time on the way back (torch.utils.checkpoint): only one chunk's are in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from ase import Atoms
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pretrain_mlip import keys
from pretrain_mlip.graphs.graph import batch_index, edge_vectors, make_batch, make_graph
from pretrain_mlip.potentials.base import forces_from_gradient, summed_products
from pretrain_mlip.potentials.eam.form import EAM, group_edges
from pretrain_mlip.potentials.eam.settings import EAMSettings

CHUNK_EDGES = 1_000_000  # about 0.6 kB of intermediate values each


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


@dataclass
class _Chunk:
    """Some of the structures as one batch."""

    types: Tensor
    edge_index: Tensor
    vectors: Tensor
    groups: dict[tuple[int, int], Tensor]
    batch: Tensor
    volume: Tensor
    atoms: Tensor

    def predict(self, eam: EAM) -> Prediction:
        energies, factor, distance = eam.interaction(self.types, self.edge_index, self.vectors, self.groups)
        gradient = self.vectors * (factor / distance)[:, None]
        forces = forces_from_gradient(gradient, self.edge_index, len(self.types))
        frames = len(self.atoms)
        virial = summed_products(self.vectors, gradient, self.edge_index[1], self.batch, frames)
        energy = energies.new_zeros(frames).index_add(0, self.batch, energies) / self.atoms
        volume = torch.where(torch.isfinite(self.volume), self.volume, torch.inf)  # keeps gradients finite
        return Prediction(energy, forces, virial / volume[:, None])


class Problem:
    """Structures with labels, and everything that does not change during a fit."""

    def __init__(self, eam: EAM, frames: Sequence[Atoms], known_e0: Mapping[str, float] | None = None) -> None:
        """Search neighbours within the cutoff of ``eam`` and collect labels; ``known_e0`` (eV) are not fitted."""
        chunks, labels = [], []
        for graph in (make_batch(part) for part in _parts(frames, eam.cutoff)):
            types = eam.types(graph[keys.ATOMIC_NUMBERS])
            chunks.append(
                _Chunk(
                    types=types,
                    edge_index=graph[keys.EDGE_INDEX],
                    vectors=edge_vectors(graph),
                    groups=group_edges(types, graph[keys.EDGE_INDEX], len(eam.elements)),
                    batch=batch_index(graph),
                    volume=graph[keys.VOLUME],
                    atoms=torch.bincount(batch_index(graph), minlength=len(graph[keys.ENERGY])).to(torch.float64),
                )
            )
            labels.append({name: graph[name] for name in (*keys.LABELS, keys.CONFIG_WEIGHT)})
        self.chunks: list[_Chunk] = chunks

        def joined(name: str) -> Tensor:
            return torch.cat([part[name] for part in labels])

        atoms = torch.cat([chunk.atoms for chunk in chunks])
        types = torch.cat([chunk.types for chunk in chunks])
        self.batch = torch.repeat_interleave(torch.arange(len(frames)), atoms.to(torch.int64))
        self.energy = joined(keys.ENERGY) / atoms
        self.forces, self.stress, self.weight = joined(keys.FORCES), joined(keys.STRESS), joined(keys.CONFIG_WEIGHT)
        self.has_forces = torch.isfinite(self.forces).all(1)
        volume = torch.cat([chunk.volume for chunk in chunks])
        self.has_stress = torch.isfinite(self.stress).all(1) & torch.isfinite(volume)

        composition = torch.zeros((len(frames), len(eam.elements)), dtype=torch.float64)
        composition.index_put_((self.batch, types), torch.ones(len(types), dtype=torch.float64), accumulate=True)
        self.composition = composition / atoms[:, None]  # (B, S) share of each element
        known = [(known_e0 or {}).get(symbol) for symbol in eam.elements]
        self.known_e0 = torch.tensor([value or 0.0 for value in known], dtype=torch.float64)
        self.free = self.composition * torch.tensor([value is None for value in known])
        # Weighted least squares: energies per atom -> E0s that are not known. The relative cut-off keeps directions
        # that no frame determines (SiO2 only, say) at the smallest E0s.
        root = self.weight.sqrt()
        self.solver = torch.linalg.pinv(self.free * root[:, None], rtol=1e-8) * root
        self.scales = Scales(
            max(self.constant_error() or 0.0, 5e-3),
            max(rms(self.forces[self.has_forces]) or 0.0, 5e-2),
            max(rms(self.stress[self.has_stress]) or 0.0, 1e-3),
        )

    def edges(self) -> int:
        """Number of directed pairs within the cutoff."""
        return sum(chunk.edge_index.shape[1] for chunk in self.chunks)

    def pairs(self) -> set[tuple[int, int]]:
        """Pairs of types, the smaller first, that are within the cutoff of each other somewhere."""
        return {(min(group), max(group)) for chunk in self.chunks for group in chunk.groups}

    def predict(self, eam: EAM) -> Prediction:
        """Of all structures, in their order."""
        if len(self.chunks) == 1 or not torch.is_grad_enabled():
            parts = [chunk.predict(eam) for chunk in self.chunks]
        else:
            parts = [checkpoint(chunk.predict, eam, use_reentrant=False) for chunk in self.chunks]
        return Prediction(*(torch.cat(values) for values in zip(*parts, strict=True)))

    def densities(self, eam: EAM) -> Tensor:
        """(N,) the density at every atom."""
        found = []
        for chunk in self.chunks:
            density = torch.zeros(len(chunk.types), dtype=torch.float64)
            for (source, centre), edges in chunk.groups.items():
                distance = torch.linalg.vector_norm(chunk.vectors[edges], dim=1)
                density.index_add_(0, chunk.edge_index[1][edges], eam.density(source, centre, distance)[0])
            found.append(density)
        return torch.cat(found)

    def loss(self, eam: EAM, settings: EAMSettings) -> Tensor:
        """Weighted pseudo-Huber loss, with the best E0s."""
        energy, forces, stress = self.predict(eam)
        has_forces, has_stress, weight, scales = self.has_forces, self.has_stress, self.weight, self.scales
        terms = (
            (settings.energy_weight, self._beyond_e0(energy)[:, None] / scales.energy, weight),
            (
                settings.forces_weight,
                (forces - self.forces)[has_forces] / scales.forces,
                weight[self.batch][has_forces],
            ),
            (settings.stress_weight, (stress - self.stress)[has_stress] / scales.stress, weight[has_stress]),
        )
        loss = energy.new_zeros(())
        for share, values, of_frame in terms:
            if share > 0 and values.numel():
                loss = loss + share * (_pseudo_huber(values, settings.huber).mean(1) * of_frame).mean()
        return loss

    def best_e0(self, eam: EAM) -> Tensor:
        """(S,) eV: the known ones, and those of the weighted least squares."""
        with torch.no_grad():
            rest = self.energy - self.composition @ self.known_e0 - self.predict(eam).energy
            return self.known_e0 + self.solver @ rest

    def errors(self, eam: EAM) -> dict[str, float | None]:
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


def _parts(frames: Sequence[Atoms], cutoff: float) -> Iterator[list]:
    """Graphs of the structures in lists of at most ``CHUNK_EDGES`` edges, one structure at least."""
    part, edges = [], 0
    for atoms in frames:
        graph = make_graph(atoms, cutoff, labels=True)
        count = graph[keys.EDGE_INDEX].shape[1]
        if part and edges + count > CHUNK_EDGES:
            yield part
            part, edges = [], 0
        part.append(graph)
        edges += count
    if part:
        yield part


def _pseudo_huber(values: Tensor, delta: float) -> Tensor:
    return 2.0 * delta**2 * (torch.sqrt(1.0 + (values / delta).square()) - 1.0)


def rms(values: Tensor) -> float | None:
    """Root mean square; None of nothing."""
    return float(values.square().mean().sqrt()) if values.numel() else None
