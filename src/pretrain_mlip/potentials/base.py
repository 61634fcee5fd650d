"""What every potential is: atomic energies from types and edge vectors, and everything that follows from them.

A model states local energies only. Energy, forces and stress come from one derivative, that of the total energy with
respect to the edge vectors: with g_e = dE / d(r_j - r_i) for the edge e = (j -> i),

    F_i = sum over edges centred on i of g_e - sum over edges with neighbour i of g_e,
    stress = 1/V sum_e r_e (x) g_e   (symmetric because energies are invariant to rotation),

which needs no strain variables and is the same contract that simulation codes with domain decomposition ask for.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from ase.data import atomic_numbers, chemical_symbols
from torch import Tensor, nn
from torch_geometric.data import Data

from pretrain_mlip import keys
from pretrain_mlip.errors import InputError
from pretrain_mlip.graphs.graph import batch_index, edge_vectors, within

Products = Literal["full", "tf32", "bfloat16"]
DTYPES = {"float32": torch.float32, "float64": torch.float64}  # of networks


class Potential(nn.Module, ABC):
    """A sum of atomic energies.

    Attributes:
        elements: chemical symbols, in the order of the types 0, 1, ...
        cutoff: Å, 0 where atoms do not interact.
        half_list: graphs with one edge per pair are enough, and edges beyond the cutoff do no harm.
        fades: an edge as long as the cutoff does nothing, as if it were not there.
        spread: ``forward`` tells how far the members of an ensemble are apart.
    """

    kind: str  # the name under which a checkpoint finds the class
    half_list = False
    fades = True
    spread = False
    _type_of_number: Tensor

    def __init__(self, elements: Sequence[str], cutoff: float) -> None:
        super().__init__()
        unknown = [symbol for symbol in elements if symbol not in atomic_numbers or symbol == "X"]
        if unknown or not elements or len(set(elements)) != len(elements):
            raise InputError(f"elements {list(elements)}: distinct chemical symbols are expected")
        self.elements = tuple(elements)
        self.cutoff = float(cutoff)
        lookup = torch.full((len(chemical_symbols),), -1, dtype=torch.int64)
        for number, symbol in enumerate(self.elements):
            lookup[atomic_numbers[symbol]] = number
        self.register_buffer("_type_of_number", lookup, persistent=False)

    @abstractmethod
    def atomic_energies(self, types: Tensor, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        """Local energies.

        Args:
            types: (N,) int64, index into ``elements``.
            edge_index: (2, E) int64, row 0 the neighbour, row 1 the centre; all pairs within the cutoff.
            edge_vectors: (E, 3) Å, float64, from the centre to the neighbour.

        Returns:
            (N,) eV.
        """

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """What the constructor needs, as JSON-able values (with ``kind``); weights are in the state dict."""

    def energies_and_gradient(
        self, types: Tensor, edge_index: Tensor, edge_vectors: Tensor, *, create_graph: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Local energies (N,) in eV and the derivative of their sum with respect to the edge vectors (E, 3) in eV/Å.

        By automatic differentiation; ``create_graph`` makes the result differentiable for training on forces.
        """
        with torch.enable_grad():
            vectors = edge_vectors.detach().requires_grad_(True)  # noqa: FBT003
            energies = self.atomic_energies(types, edge_index, vectors)
            if not energies.requires_grad:  # no edges, or no interaction
                return energies, torch.zeros_like(edge_vectors)
            (gradient,) = torch.autograd.grad(energies.sum(), vectors, create_graph=create_graph, allow_unused=True)
        if gradient is None:
            gradient = torch.zeros_like(edge_vectors)
        return (energies if create_graph else energies.detach()), gradient

    def types(self, numbers: Tensor) -> Tensor:
        """Types (N,) of atomic numbers (N,).

        Raises:
            InputError: an element is not one of this potential's.
        """
        types = self._type_of_number[numbers]
        if numbers.numel() and int(types.min()) < 0:
            strange = sorted({chemical_symbols[int(number)] for number in numbers[types < 0]})
            raise InputError(
                f"element {', '.join(strange)} is not supported by this potential ({', '.join(self.elements)})"
            )
        return types

    def forward(
        self, graph: Data, *, forces: bool = True, stress: bool = True, create_graph: bool = False
    ) -> dict[str, Tensor]:
        """Energy and its derivatives for one graph or a batch.

        Args:
            graph: made by ``make_graph`` or ``make_batch`` with this potential's cutoff; ``within`` takes longer edges
                out of others. They do harm: not every network fades beyond its cutoff.
            forces: compute forces and, if asked for, stress.
            stress: compute the stress; nan for structures that are not periodic in three directions.
            create_graph: keep what training on forces needs.

        Returns:
            energy (B,), energies (N,), forces (N, 3), stress (B, 6), see ``keys``; float64.

        Raises:
            InputError: an element is not supported, or the graph has half of the edges that are needed.
        """
        if keys.HALF_LIST in graph:
            raise InputError(f"a potential of kind '{self.kind}' needs graphs with both edges of every pair")
        types = self.types(graph[keys.ATOMIC_NUMBERS])
        edge_index, batch = graph[keys.EDGE_INDEX], batch_index(graph)
        vectors = edge_vectors(graph)
        if forces:
            energies, gradient = self.energies_and_gradient(types, edge_index, vectors, create_graph=create_graph)
        else:
            energies, gradient = self.atomic_energies(types, edge_index, vectors), None
        energies = energies.to(torch.float64)
        volume = graph[keys.VOLUME]
        result = {
            keys.ENERGIES: energies,
            keys.ENERGY: energies.new_zeros(volume.shape[0]).index_add_(0, batch, energies),
        }
        if gradient is not None:
            result[keys.FORCES] = forces_from_gradient(gradient, edge_index, types.shape[0])
            if stress:
                virial = summed_products(vectors, gradient, edge_index[1], batch, volume.shape[0])
                result[keys.STRESS] = stress_from_virial(virial, volume)
        return result

    def set_dtype(self, dtype: torch.dtype) -> None:
        """Compute networks in this precision. Analytic parts and all sums stay in float64 whatever it is."""
        self.to(dtype)

    def set_memory_limit(self, limit: float) -> None:
        """GiB that intermediate results of a network may take where forces are wanted; other parts need little.

        Raises:
            InputError: the limit is not positive and finite.
        """
        if not 0 < limit < math.inf:
            raise InputError(f"memory_limit {limit} GiB: must be positive and finite")

    def set_products(self, products: Products) -> None:
        """Precision in which networks multiply matrices: full, or on GPUs with fast units for them tf32 or bfloat16.

        Ten bits of each factor are left with tf32, seven with bfloat16; sums and everything else stay as they are.

        Raises:
            InputError: it is none of these.
        """
        if products not in get_args(Products):
            raise InputError(f"products '{products}': expected one of {', '.join(get_args(Products))}")


def dtype_named(name: str) -> torch.dtype:
    """A precision of networks.

    Raises:
        InputError: it is neither float32 nor float64.
    """
    if name not in DTYPES:
        raise InputError(f"dtype '{name}': expected one of {', '.join(DTYPES)}")
    return DTYPES[name]


def forces_from_gradient(gradient: Tensor, edge_index: Tensor, atoms: int) -> Tensor:
    """Forces (N, 3) in eV/Å from dE/d(edge vectors) (E, 3)."""
    neighbour, centre = edge_index
    return gradient.new_zeros((atoms, 3)).index_add(0, centre, gradient).index_add(0, neighbour, -gradient)


def stress_from_virial(strain_derivative: Tensor, volume: Tensor) -> Tensor:
    """Stress (B, 6) in eV/Å³, nan where there is no volume (B,), from dE/d(strain) (B, 6) in eV."""
    periodic = torch.isfinite(volume)[:, None]  # divided before it is chosen, so that gradients stay finite
    stress = strain_derivative / torch.where(periodic, volume[:, None], torch.inf)
    return torch.where(periodic, stress, torch.nan)


def summed_products(vectors: Tensor, gradient: Tensor, centre: Tensor, batch: Tensor, structures: int) -> Tensor:
    """(B, 6) sums over edges of the symmetric part of r (x) g, in Voigt order."""
    x, y, z = vectors.unbind(1)
    gx, gy, gz = gradient.unbind(1)
    products = torch.stack(
        [x * gx, y * gy, z * gz, 0.5 * (y * gz + z * gy), 0.5 * (x * gz + z * gx), 0.5 * (x * gy + y * gx)], dim=1
    )
    return products.new_zeros((structures, 6)).index_add(0, batch.index_select(0, centre), products)


class ReferenceEnergies(Potential):
    """E0 of each element: the energy of an atom that has no neighbours, or another fixed origin."""

    kind = "reference_energies"
    values: Tensor

    def __init__(self, energies: Mapping[str, float]) -> None:
        super().__init__(list(energies), 0.0)
        self.register_buffer("values", torch.tensor(list(energies.values()), dtype=torch.float64), persistent=False)

    def config(self) -> dict[str, Any]:
        return {"kind": self.kind, "energies": self.energies()}

    def energies(self) -> dict[str, float]:
        """Energy of each element, eV."""
        return dict(zip(self.elements, self.values.tolist(), strict=True))

    def atomic_energies(self, types: Tensor, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:  # noqa: ARG002
        return self.values.index_select(0, types)

    def set_dtype(self, dtype: torch.dtype) -> None:
        """Reference energies are large and stay in float64."""


class Composition(Potential):
    """Several potentials of the same elements, each within its own cutoff, that act as one."""

    def __init__(self, parts: Sequence[Potential]) -> None:
        """Put potentials together.

        Raises:
            InputError: there is none, or they differ in elements.
        """
        if not parts or any(part.elements != parts[0].elements for part in parts):
            shown = "; ".join(", ".join(part.elements) for part in parts) or "none"
            raise InputError(f"{self.kind}: potentials of the same elements in the same order are needed, not {shown}")
        super().__init__(parts[0].elements, max(part.cutoff for part in parts))
        self.parts = nn.ModuleList(parts)

    def config(self) -> dict[str, Any]:
        return {"kind": self.kind, "parts": [part.config() for part in self.potentials()]}

    def potentials(self) -> list[Potential]:
        """The parts."""
        return [part for part in self.parts if isinstance(part, Potential)]

    def outputs(self, graph: Data, **options: bool) -> list[dict[str, Tensor]]:
        """What ``forward`` of every part gives."""
        return [
            part(graph if part.cutoff >= self.cutoff else within(graph, part.cutoff), **options)
            for part in self.potentials()
        ]

    def set_dtype(self, dtype: torch.dtype) -> None:
        for part in self.potentials():
            part.set_dtype(dtype)

    def set_memory_limit(self, limit: float) -> None:
        for part in self.potentials():
            part.set_memory_limit(limit)

    def set_products(self, products: Products) -> None:
        for part in self.potentials():
            part.set_products(products)


class SumPotential(Composition):
    """The sum of several potentials."""

    kind = "sum"

    def __init__(self, parts: Sequence[Potential]) -> None:
        super().__init__(parts)
        self.spread = any(part.spread for part in parts)

    def atomic_energies(self, types: Tensor, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        total = torch.zeros(types.shape[0], dtype=torch.float64, device=types.device)
        for part in self.potentials():
            shortened = part.cutoff < self.cutoff and not part.half_list
            if shortened and not part.fades:
                raise InputError(
                    f"the network '{part.kind}' does not fade at its cutoff of {part.cutoff} Å, and cannot be taken "
                    f"together with potentials of cutoff {self.cutoff} Å in one traced or exported graph"
                )
            vectors = _drawn_to(part.cutoff, edge_vectors) if shortened else edge_vectors
            total = total + part.atomic_energies(types, edge_index, vectors)
        return total

    def forward(
        self, graph: Data, *, forces: bool = True, stress: bool = True, create_graph: bool = False
    ) -> dict[str, Tensor]:
        total: dict[str, Tensor] = {}
        for found in self.outputs(graph, forces=forces, stress=stress, create_graph=create_graph):
            total |= {name: total[name] + value if name in total else value for name, value in found.items()}
        return total


def _drawn_to(cutoff: float, edge_vectors: Tensor) -> Tensor:
    """Edge vectors (E, 3), those beyond a cutoff (Å) replaced by one just at it, where every potential has faded.

    ``forward`` leaves such edges out. Here, in what is traced, their number would be a size that depends on values:
    AOTInductor (torch 2.13) makes code of such graphs that gives wrong gradients without a word. What a part does far
    beyond its cutoff is not asked for, and the derivative with respect to a replaced vector is zero.
    """
    inside = edge_vectors.square().sum(1, keepdim=True) < cutoff**2
    return torch.where(inside, edge_vectors, edge_vectors.new_tensor([cutoff, 0.0, 0.0]))
