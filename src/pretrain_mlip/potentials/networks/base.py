"""What all networks share: settings, and a scale that lets weights of order one give energies in eV."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from pretrain_mlip.potentials.base import Potential
from pretrain_mlip.potentials.networks.edges import Edges
from pretrain_mlip.settings import Settings


class NetworkSettings(Settings):
    """Hyperparameters that every network has."""

    cutoff: float = Field(default=5.0, gt=0, description="cutoff, Å")


class Network(Potential):
    """A potential with weights: atomic energies are ``energy_scale`` times what the network returns.

    Attributes:
        energy_scale: eV, the root mean square of the training forces times 1 Å.
        average_neighbors: mean number of neighbours in the training data; sums over neighbours are divided by its root.
        memory_limit: GiB that the messages of one layer may take; above it they are computed in parts, which costs
            about a third more time. None sets no limit.
    """

    settings_class: ClassVar[type[NetworkSettings]]
    energy_scale: Tensor
    average_neighbors: Tensor

    def __init__(self, elements: Sequence[str], settings: NetworkSettings) -> None:
        super().__init__(elements, settings.cutoff)
        self.settings = settings
        self.memory_limit: float | None = None
        self.register_buffer("energy_scale", torch.ones(()))
        self.register_buffer("average_neighbors", torch.full((), 16.0))

    @abstractmethod
    def node_energies(self, types: Tensor, edges: Edges) -> Tensor:
        """Atomic energies (N,) in units of ``energy_scale``, from types (N,) and the pairs within the cutoff."""

    @abstractmethod
    def floats_per_edge(self) -> int:
        """Numbers that one edge keeps in memory while its message is computed and derived, roughly."""

    def atomic_energies(self, types: Tensor, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        neighbour, centre = edge_index
        vectors = edge_vectors.to(self.energy_scale.dtype)
        edges = Edges(neighbour, centre, vectors, types.shape[0], self.parts_of(centre.shape[0]))
        return self.energy_scale * self.node_energies(types, edges)

    def parts_of(self, edges: int) -> int:
        """Parts that so many edges are computed in."""
        if self.memory_limit is None:
            return 1
        needed = edges * self.floats_per_edge() * self.energy_scale.element_size()
        return max(1, math.ceil(needed / (self.memory_limit * 2**30)))

    @abstractmethod
    def reset_output(self) -> None:
        """Set the last layer to zero, so that every atomic energy is zero."""

    def set_scales(self, energy_scale: float, average_neighbors: float) -> None:
        """Set the constants that are taken from the training data."""
        self.energy_scale.fill_(max(energy_scale, 1e-3))
        self.average_neighbors.fill_(max(average_neighbors, 1.0))

    def set_memory_limit(self, limit: float) -> None:
        super().set_memory_limit(limit)
        self.memory_limit = limit

    def config(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "elements": list(self.elements),
            "hyperparameters": self.settings.model_dump(mode="json"),
        }
