"""The embedded-atom potential: Morse pairs, exponential densities, a convex embedding, a ZBL wall.

    E = sum_i [ E0(Z_i) + F_Zi(rho_i) + 1/2 sum_j phi_ZiZj(r_ij) ],   rho_i = sum_j f_ZjZi(r_ij)

(Daw and Baskes, Phys. Rev. B 29, 6443 (1984); Morse pairs after Morse, Phys. Rev. 34, 57 (1929).)

phi = D [(1 - exp(-a (r - r0)))² - 1] c(r) + ZBL(r) w(r), with c the taper to the cutoff and w the fade of the universal
repulsion between 0.35 and 0.70 of the sum of covalent radii s. The Morse minimum lies outside 0.70 s by construction.

f = A exp(-b (q(r) - s)) c(r), where q(r) is the distance above 0.70 s and a constant below 0.60 s. An atom at contact
hence changes no density: inside 0.60 s the force between two atoms is that of phi alone, strictly repulsive and
steepening, whatever the data said and whatever surrounds the pair. That is the wall, and no fit can remove it. The form
``alloy`` has one density per source element (s is then the largest of its pairs), ``fs`` one per source and centre
(Finnis and Sinclair, Philos. Mag. A 50, 45 (1984)).

F(rho) = -k1 g(rho) + k2 rho + k3 rho²/(1 + rho/kappa), g = sqrt(rho + delta) - sqrt(delta): F(0) = 0, convex because k1
and k3 are positive (a further neighbour binds less than the one before), and linear far above the data (rho is scaled
to be of order one there), where LAMMPS continues it linearly and other codes by its spline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from ase.data import atomic_numbers, covalent_radii
from torch import Tensor, nn

from pretrain_mlip.errors import InputError
from pretrain_mlip.files import read_json, write_json
from pretrain_mlip.potentials.base import Potential
from pretrain_mlip.potentials.radial import flattened, switch, zbl

if TYPE_CHECKING:
    import os

    from pretrain_mlip.calculators.ase import PretrainedMLIP

Form = Literal["alloy", "fs"]
TAPER_START = 0.625  # of the cutoff
WALL = (0.35, 0.70)  # of the covalent sum: where ZBL fades out
FLAT = (0.60, 0.70)  # of the covalent sum: where the density turns constant
MORSE_START = 0.70  # of the covalent sum: r0 lies outside
DELTA = 0.05  # smooths the square root at zero density
KAPPA = 5.0  # where the quadratic part turns linear
FORMAT_VERSION = 1


class EAM(Potential):
    """An embedded-atom potential with E0s; float64 always.

    Parameters are stored as logarithms where they must be positive. P = S (S + 1) / 2 pairs in the order of
    ``pairs``; densities are (S, S), row the source, column the centre, rows constant in the form ``alloy``.
    """

    kind = "eam"
    e0: Tensor

    def __init__(self, elements: Sequence[str], cutoff: float = 8.0, form: Form = "alloy") -> None:
        super().__init__(elements, cutoff)
        if form not in get_args(Form):
            raise InputError(f"EAM form '{form}': expected one of {', '.join(get_args(Form))}")
        self.form: Form = form
        self.report: dict[str, Any] = {}  # how it was fitted, carried along in eam.json
        count = len(self.elements)
        self.pairs = [(a, b) for a in range(count) for b in range(a, count)]
        longest = max(self.covalent_sum(a, b) for a, b in self.pairs)
        if not cutoff > 1.5 * longest:
            raise InputError(
                f"EAM cutoff {cutoff} Å: must exceed 1.5 times the longest covalent bond ({1.5 * longest:.2f} Å)"
            )
        sums = torch.tensor([self.covalent_sum(a, b) for a, b in self.pairs], dtype=torch.float64)
        sources = (count, count) if form == "fs" else (count, 1)

        def filled(shape: Sequence[int], value: float) -> nn.Parameter:
            return nn.Parameter(torch.full(tuple(shape), value, dtype=torch.float64))

        self.log_depth = filled([len(self.pairs)], float(np.log(0.5)))  # ln D, D in eV
        self.log_width = filled([len(self.pairs)], float(np.log(1.5)))  # ln a, a in 1/Å
        self.log_minimum = nn.Parameter(torch.log((1.05 - MORSE_START) * sums))  # ln(r0 - 0.70 s)
        self.log_amplitude = filled(sources, float(np.log(0.3)))  # ln A
        self.log_decay = filled(sources, float(np.log(1.5)))  # ln b, b in 1/Å
        self.log_root = filled([count], 0.0)  # ln k1, k in eV
        self.linear = filled([count], 0.0)  # k2
        self.log_square = filled([count], float(np.log(0.1)))  # ln k3
        self.register_buffer("e0", torch.zeros(count, dtype=torch.float64))

    def covalent_sum(self, a: int, b: int) -> float:
        """Sum of the covalent radii of two types, Å."""
        return float(
            covalent_radii[atomic_numbers[self.elements[a]]] + covalent_radii[atomic_numbers[self.elements[b]]]
        )

    def pair_number(self, a: int, b: int) -> int:
        """Index of an unordered pair of types in ``pairs``."""
        return self.pairs.index((min(a, b), max(a, b)))

    def pair(self, a: int, b: int, distance: Tensor) -> tuple[Tensor, Tensor]:
        """Phi of two types, eV, and its derivative, eV/Å."""
        morse, morse_slope = self.morse(a, b, distance)
        wall, wall_slope = self.wall(a, b, distance)
        return morse + wall, morse_slope + wall_slope

    def morse(self, a: int, b: int, distance: Tensor) -> tuple[Tensor, Tensor]:
        """The tapered Morse part of phi and its derivative."""
        number = self.pair_number(a, b)
        depth, width = self.log_depth[number].exp(), self.log_width[number].exp()
        minimum = MORSE_START * self.covalent_sum(a, b) + self.log_minimum[number].exp()
        decay = torch.exp(-width * (distance - minimum))
        value, slope = depth * decay * (decay - 2.0), 2.0 * depth * width * decay * (1.0 - decay)
        taper, taper_slope = switch(distance, TAPER_START * self.cutoff, self.cutoff)
        return value * taper, slope * taper + value * taper_slope

    def wall(self, a: int, b: int, distance: Tensor) -> tuple[Tensor, Tensor]:
        """The ZBL part of phi and its derivative."""
        total = self.covalent_sum(a, b)
        numbers = [atomic_numbers[self.elements[kind]] for kind in (a, b)]
        value, slope = zbl(distance, *numbers)
        fade, fade_slope = switch(distance, WALL[0] * total, WALL[1] * total)
        return value * fade, slope * fade + value * fade_slope

    def density(self, source: int, centre: int, distance: Tensor) -> tuple[Tensor, Tensor]:
        """F of a source atom at a centre, dimensionless, and its derivative, 1/Å."""
        column = centre if self.form == "fs" else 0
        if self.form == "fs":
            total = self.covalent_sum(source, centre)
        else:
            total = max(self.covalent_sum(source, other) for other in range(len(self.elements)))
        amplitude, decay = self.log_amplitude[source, column].exp(), self.log_decay[source, column].exp()
        flat, flat_slope = flattened(distance, FLAT[0] * total, FLAT[1] * total)
        value = amplitude * torch.exp(-decay * (flat - total))
        taper, taper_slope = switch(distance, TAPER_START * self.cutoff, self.cutoff)
        return value * taper, value * (taper_slope - decay * flat_slope * taper)

    def embedding(self, types: Tensor, density: Tensor) -> tuple[Tensor, Tensor]:
        """F of atoms of the given types at the given densities, eV, and its derivative."""
        root, square = self.log_root.exp().index_select(0, types), self.log_square.exp().index_select(0, types)
        linear = self.linear.index_select(0, types)
        smooth_root = torch.sqrt(density + DELTA)
        damping = 1.0 / (1.0 + density / KAPPA)
        value = -root * (smooth_root - DELTA**0.5) + linear * density + square * density.square() * damping
        slope = -0.5 * root / smooth_root + linear + square * density * damping * (1.0 + damping)
        return value, slope

    def energies_and_gradient(
        self, types: Tensor, edge_index: Tensor, edge_vectors: Tensor, *, create_graph: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Analytic: the derivative needs no automatic differentiation, and fits differentiate once, not twice."""
        with torch.set_grad_enabled(create_graph):
            groups = group_edges(types, edge_index, len(self.elements))
            energies, factor, distance = self.interaction(types, edge_index, edge_vectors, groups)
            return self.e0.index_select(0, types) + energies, edge_vectors * (factor / distance)[:, None]

    def atomic_energies(self, types: Tensor, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        groups = group_edges(types, edge_index, len(self.elements))
        return self.e0.index_select(0, types) + self.interaction(types, edge_index, edge_vectors, groups)[0]

    def interaction(
        self, types: Tensor, edge_index: Tensor, edge_vectors: Tensor, groups: Mapping[tuple[int, int], Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Energies without E0s (N,), dE/dr of directed edges (E,), distances (E,); groups from ``group_edges``."""
        centre = edge_index[1]
        distance = torch.linalg.vector_norm(edge_vectors.to(torch.float64), dim=1)
        pair, pair_slope, density, density_slope = (torch.zeros_like(distance) for _ in range(4))
        for (source, middle), edges in groups.items():
            along = distance.index_select(0, edges)
            values = (*self.pair(middle, source, along), *self.density(source, middle, along))
            pair, pair_slope, density, density_slope = (
                total.index_copy(0, edges, value)
                for total, value in zip((pair, pair_slope, density, density_slope), values, strict=True)
            )
        zeros = distance.new_zeros(types.shape[0])
        embedded, embedded_slope = self.embedding(types, zeros.index_add(0, centre, density))
        energies = embedded + 0.5 * zeros.index_add(0, centre, pair)
        factor = 0.5 * pair_slope + embedded_slope.index_select(0, centre) * density_slope
        return energies, factor, distance

    def set_dtype(self, dtype: torch.dtype) -> None:
        """An EAM stays in float64: it is cheap, and its walls are steep."""

    def calculator(self) -> PretrainedMLIP:
        """An ASE calculator."""
        from pretrain_mlip.calculators.ase import PretrainedMLIP

        return PretrainedMLIP(self)

    def write_setfl(self, path: str | os.PathLike[str], **options: Any) -> None:
        """Write eam/alloy or eam/fs tables; see ``pretrain_mlip.potentials.eam.setfl.write_setfl``."""
        from pretrain_mlip.potentials.eam.setfl import write_setfl

        write_setfl(self, path, **options)

    def reference_energies(self) -> dict[str, float]:
        """E0 of each element, eV."""
        return dict(zip(self.elements, self.e0.tolist(), strict=True))

    def config(self) -> dict[str, Any]:
        return {"kind": self.kind, "elements": list(self.elements), "cutoff": self.cutoff, "form": self.form}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write eam.json: everything that ``load`` needs, in text, and the report of the fit."""
        values = {name: value.tolist() for name, value in self.state_dict().items()}
        content = {"format": "pretrain-mlip-eam", "format_version": FORMAT_VERSION}
        write_json(path, content | self.config() | {"parameters": values, "report": self.report})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> EAM:
        """Read eam.json.

        Raises:
            InputError: the file is missing, is not JSON or is not an EAM of ours.
        """
        content = read_json(path)
        if not isinstance(content, dict) or content.get("format") != "pretrain-mlip-eam":
            raise InputError(f"{path}: not an EAM written by pretrain-mlip (fit-eam writes one)")
        if content.get("format_version") != FORMAT_VERSION:
            raise InputError(
                f"{path}: format version {content.get('format_version')}, this version reads {FORMAT_VERSION}"
            )
        try:
            eam = cls(content["elements"], content["cutoff"], content["form"])
            state = {name: torch.tensor(value, dtype=torch.float64) for name, value in content["parameters"].items()}
            eam.load_state_dict(state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"{Path(path)}: damaged EAM file ({' '.join(str(error).split())})") from error
        if not all(bool(torch.isfinite(value).all()) for value in state.values()):
            raise InputError(f"{Path(path)}: damaged EAM file (a parameter is not finite)")
        eam.report = content.get("report", {})
        return eam.requires_grad_(False)  # noqa: FBT003


def group_edges(types: Tensor, edge_index: Tensor, elements: int) -> dict[tuple[int, int], Tensor]:
    """Indices of the edges of each (source type, centre type) that occurs."""
    neighbour, centre = edge_index
    label = types.index_select(0, neighbour) * elements + types.index_select(0, centre)
    groups = {}
    for source in range(elements):
        for middle in range(elements):
            edges = (label == source * elements + middle).nonzero().squeeze(1)
            if edges.numel():
                groups[source, middle] = edges
    return groups


def decompose_dimers(eam: EAM, points: int = 400, r_min: float = 0.5) -> dict[str, dict[str, list[float]]]:
    """The energy of every dimer split into its parts, relative to separated atoms.

    Returns:
        For each pair "A-B": r (Å) and density, morse, wall, total (eV) and atomic (E0s, eV), lists of equal length.
    """
    distance = torch.linspace(r_min, eam.cutoff, points, dtype=torch.float64)
    result = {}
    with torch.no_grad():
        for a, b in eam.pairs:
            kinds = [torch.full((points,), kind) for kind in (a, b)]
            density = eam.embedding(kinds[0], eam.density(b, a, distance)[0])[0]
            density = density + eam.embedding(kinds[1], eam.density(a, b, distance)[0])[0]
            morse, wall = eam.morse(a, b, distance)[0], eam.wall(a, b, distance)[0]
            atomic = torch.full_like(distance, float(eam.e0[a] + eam.e0[b]))
            parts = {"r": distance, "density": density, "morse": morse, "wall": wall, "total": density + morse + wall}
            result["-".join(sorted((eam.elements[a], eam.elements[b])))] = {
                name: value.tolist() for name, value in (parts | {"atomic": atomic}).items()
            }
    return result
