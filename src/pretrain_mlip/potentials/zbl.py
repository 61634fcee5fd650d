"""Universal screened repulsion of nuclei, as a part of a sum: no network can then let two atoms merge.

    E = 1/2 sum_i sum_j ZBL(r_ij) w(r_ij)

with the universal potential of Ziegler, Biersack and Littmark (The Stopping and Range of Ions in Matter, 1985) and a
switch w that takes it to zero, with two continuous derivatives, between an inner and an outer distance of each pair of
elements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement
from typing import Any

import torch
from ase.data import atomic_numbers, covalent_radii
from torch import Tensor

from pretrain_mlip.errors import InputError
from pretrain_mlip.potentials.base import Potential
from pretrain_mlip.potentials.eam.form import WALL
from pretrain_mlip.potentials.radial import switch, zbl


class ZBL(Potential):
    """Repulsion of pairs of atoms that are closer than any bond; float64 always.

    Attributes:
        ranges: inner and outer distance (Å) of each pair of elements, by their symbols in alphabetical order, "O-Si".
    """

    kind = "zbl"
    numbers: Tensor
    bounds: Tensor

    def __init__(self, elements: Sequence[str], ranges: Mapping[str, Sequence[float]] | None = None) -> None:
        """Set up the repulsion.

        Args:
            elements: chemical symbols.
            ranges: inner and outer distance (Å) of pairs such as "O-Si"; those that are not named take 0.35 and 0.70
                of the sum of covalent radii, where the wall of a fitted EAM fades too.

        Raises:
            InputError: an element or a pair is unknown, or not 0 <= inner < outer.
        """
        super().__init__(elements, 0.0)
        self.ranges = {_name(a, b): _default_range(a, b) for a, b in combinations_with_replacement(self.elements, 2)}
        for name, bounds in (ranges or {}).items():
            if name not in self.ranges:
                raise InputError(f"ZBL ranges: '{name}' is not a pair; the pairs are {', '.join(sorted(self.ranges))}")
            if len(bounds) != 2 or not 0.0 <= bounds[0] < bounds[1] < float("inf"):
                raise InputError(f"ZBL range of {name}: 0 <= inner < outer is expected, not {list(bounds)}")
            self.ranges[name] = (float(bounds[0]), float(bounds[1]))
        self.cutoff = max(outer for _, outer in self.ranges.values())
        rows = [self.ranges[_name(a, b)] for a in self.elements for b in self.elements]
        numbers = [float(atomic_numbers[symbol]) for symbol in self.elements]
        self.register_buffer("bounds", torch.tensor(rows, dtype=torch.float64).T.contiguous(), persistent=False)
        self.register_buffer("numbers", torch.tensor(numbers, dtype=torch.float64), persistent=False)

    def config(self) -> dict[str, Any]:
        ranges = {name: list(bounds) for name, bounds in self.ranges.items()}
        return {"kind": self.kind, "elements": list(self.elements), "ranges": ranges}

    def atomic_energies(self, types: Tensor, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        neighbour, centre = edge_index
        distance = torch.linalg.vector_norm(edge_vectors.to(torch.float64), dim=1)
        a, b = types.index_select(0, centre), types.index_select(0, neighbour)
        value, _ = zbl(distance, self.numbers.index_select(0, a), self.numbers.index_select(0, b))
        inner, outer = self.bounds.index_select(1, a * len(self.elements) + b)
        fade, _ = switch(distance, inner, outer)
        return distance.new_zeros(types.shape[0]).index_add(0, centre, 0.5 * value * fade)

    def set_dtype(self, dtype: torch.dtype) -> None:
        """Repulsion is steep, and stays in float64."""


def _name(a: str, b: str) -> str:
    return "-".join(sorted((a, b)))


def _default_range(a: str, b: str) -> tuple[float, float]:
    total = float(covalent_radii[atomic_numbers[a]] + covalent_radii[atomic_numbers[b]])
    return WALL[0] * total, WALL[1] * total
