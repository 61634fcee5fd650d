"""What all networks share: settings, and a scale that lets weights of order one give energies in eV."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from pretrain_mlip.potentials.base import Potential, Products
from pretrain_mlip.potentials.networks.edges import Edges
from pretrain_mlip.settings import Settings

FEWEST_EDGES = 256  # of a chunk, whatever the limit: below, nothing but overhead is left
EDGES_PER_CHUNK = 8192  # large enough to hide the overhead of a chunk, small enough for the processor's cache


class NetworkSettings(Settings):
    """Hyperparameters that every network has."""

    cutoff: float = Field(default=5.0, gt=0, description="cutoff, Å")


class Network(Potential):
    """A potential with weights: atomic energies are ``energy_scale`` times what the network returns.

    Attributes:
        energy_scale: eV, the root mean square of the training forces times 1 Å.
        average_neighbors: mean number of neighbours in the training data; sums over neighbours are divided by its root.
        memory_limit: GiB that intermediate results may take where only forces are wanted; above it they are computed
            piece by piece and twice, which costs about half as much time again. None sets no limit.
        products: precision in which matrices are multiplied where forces are wanted, see ``set_products``.
        learning_rate: highest rate of AdamW that trains it well from fresh weights, of a few structures a step.
        finetuning_rate: likewise from weights of a pretraining.
    """

    settings_class: ClassVar[type[NetworkSettings]]
    learning_rate: ClassVar[float] = 1e-3
    finetuning_rate: ClassVar[float] = 5e-4
    energy_scale: Tensor
    average_neighbors: Tensor

    def __init__(self, elements: Sequence[str], settings: NetworkSettings) -> None:
        super().__init__(elements, settings.cutoff)
        self.settings = settings
        self.memory_limit: float | None = None
        self.products: Products = "full"
        self.register_buffer("energy_scale", torch.ones(()))
        self.register_buffer("average_neighbors", torch.full((), 16.0))

    @abstractmethod
    def node_energies(self, types: Tensor, edges: Edges) -> Tensor:
        """Atomic energies (N,) in units of ``energy_scale``, from types (N,) and the pairs within the cutoff."""

    @abstractmethod
    def floats_per_edge(self) -> int:
        """Numbers that one edge keeps in memory until it has been derived, in all layers, roughly."""

    def atomic_energies(self, types: Tensor, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        return self._atomic_energies(types, edge_index, edge_vectors, None)

    def _atomic_energies(self, types: Tensor, edge_index: Tensor, edge_vectors: Tensor, chunk: int | None) -> Tensor:
        neighbour, centre = edge_index
        edges = Edges(neighbour, centre, edge_vectors.to(self.energy_scale.dtype), types.shape[0], chunk)
        return self.energy_scale * self.node_energies(types, edges).to(self.energy_scale.dtype)

    def energies_and_gradient(
        self, types: Tensor, edge_index: Tensor, edge_vectors: Tensor, *, create_graph: bool = False
    ) -> tuple[Tensor, Tensor]:
        chunk = self.chunk(edge_index.shape[1])
        if create_graph or chunk is None:
            with reduced_precision(self.products, edge_vectors.device):
                return super().energies_and_gradient(types, edge_index, edge_vectors, create_graph=create_graph)
        with reduced_precision(self.products, edge_vectors.device), torch.enable_grad():
            vectors = edge_vectors.detach().requires_grad_(True)  # noqa: FBT003
            energies = self._atomic_energies(types, edge_index, vectors, chunk)
            (gradient,) = torch.autograd.grad(energies.sum(), vectors)
        return energies.detach(), gradient

    def chunk(self, edges: int) -> int | None:
        """How many of so many edges are computed at a time; None for all."""
        if self.memory_limit is None:
            return None
        fitting = int(self.memory_limit * 2**30 / (self.floats_per_edge() * self.energy_scale.element_size()))
        return None if edges <= fitting else min(max(fitting, FEWEST_EDGES), EDGES_PER_CHUNK)

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

    def set_products(self, products: Products) -> None:
        super().set_products(products)
        self.products = products

    def config(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "elements": list(self.elements),
            "hyperparameters": self.settings.model_dump(mode="json"),
        }


@contextmanager
def reduced_precision(products: Products, device: torch.device) -> Iterator[None]:
    """Multiply matrices on a device in a precision below that of their numbers, and leave torch as it was."""
    if products == "bfloat16":
        with torch.autocast(device.type, torch.bfloat16):
            yield
    elif products == "tf32" and device.type == "cuda":
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = True
        try:
            yield
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before
    else:
        yield
