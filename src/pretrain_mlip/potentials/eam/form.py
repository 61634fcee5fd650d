"""The fitted embedded-atom potential: Morse pairs, exponential densities, a convex embedding, a ZBL wall.

phi = D [(1 - exp(-a (r - r0)))² - 1] c(r) + ZBL(r) w(r) (Morse, Phys. Rev. 34, 57 (1929)), with c the taper to the
cutoff and w the fade of the universal repulsion between 0.35 and 0.70 of the sum of covalent radii s. The Morse minimum
lies outside 0.70 s by construction.

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

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from ase.data import atomic_numbers
from torch import Tensor, nn

from pretrain_mlip.errors import InputError
from pretrain_mlip.potentials.eam.embedded_atom import EmbeddedAtom, Form
from pretrain_mlip.potentials.eam.pairs import Functions
from pretrain_mlip.potentials.eam.splines import cubics, slopes_of_samples
from pretrain_mlip.potentials.radial import flattened, switch, zbl

if TYPE_CHECKING:
    import os

    from pretrain_mlip.potentials.eam.tabulated import TabulatedEAM

TAPER_START = 0.625  # of the cutoff
WALL = (0.35, 0.70)  # of the covalent sum: where ZBL fades out
FLAT = (0.60, 0.70)  # of the covalent sum: where the density turns constant
MORSE_START = 0.70  # of the covalent sum: r0 lies outside
DELTA = 0.05  # smooths the square root at zero density
KAPPA = 5.0  # where the quadratic part turns linear
SPACING = 0.002  # Å at most between the nodes of tables: cubics are then good to 3e-8 eV Å, at their joints


class EAM(EmbeddedAtom):
    """An embedded-atom potential with the functions above.

    Parameters are stored as logarithms where they must be positive. P = S (S + 1) / 2 pairs in the order of
    ``pairs``; densities are (S, S), row the source, column the centre, or (S, 1) in the form ``alloy``.
    """

    kind = "eam"

    def __init__(self, elements: Sequence[str], cutoff: float = 8.0, form: Form = "alloy") -> None:
        if form not in get_args(Form):
            raise InputError(f"EAM form '{form}': expected one of {', '.join(get_args(Form))}")
        super().__init__(elements, cutoff, form)
        sums = [self.covalent_sum(a, b) for a, b in self.pairs]
        if not cutoff > 1.5 * max(sums):
            raise InputError(
                f"EAM cutoff {cutoff} Å: must exceed 1.5 times the longest covalent bond ({1.5 * max(sums):.2f} Å)"
            )
        count = len(self.elements)
        sources = (count, count) if form == "fs" else (count, 1)

        def filled(shape: Sequence[int], value: float) -> nn.Parameter:
            return nn.Parameter(torch.full(tuple(shape), value, dtype=torch.float64))

        self.sums = torch.tensor(sums, dtype=torch.float64)
        self.log_depth = filled([len(self.pairs)], float(np.log(0.5)))  # ln D, D in eV
        self.log_width = filled([len(self.pairs)], float(np.log(1.5)))  # ln a, a in 1/Å
        self.log_minimum = nn.Parameter(torch.log((1.05 - MORSE_START) * self.sums))  # ln(r0 - 0.70 s)
        self.log_amplitude = filled(sources, float(np.log(0.3)))  # ln A
        self.log_decay = filled(sources, float(np.log(1.5)))  # ln b, b in 1/Å
        self.log_root = filled([count], 0.0)  # ln k1, k in eV
        self.linear = filled([count], 0.0)  # k2
        self.log_square = filled([count], float(np.log(0.1)))  # ln k3

    def config(self) -> dict[str, Any]:
        return {"kind": self.kind, "elements": list(self.elements), "cutoff": self.cutoff, "form": self.form}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> EAM:
        """With starting parameters."""
        return cls(config["elements"], config["cutoff"], config["form"])

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> EmbeddedAtom:
        """Read eam.json, of a fitted potential or of one made from tables.

        Raises:
            InputError: the file is missing, is not JSON or is not an EAM of ours.
        """
        from pretrain_mlip.potentials.eam.storage import load_eam

        return load_eam(path)

    @staticmethod
    def from_setfl(path: str | os.PathLike[str], elements: Sequence[str] | None = None) -> TabulatedEAM:
        """A potential from setfl tables; see ``pretrain_mlip.potentials.eam.setfl_reading.read_setfl``."""
        from pretrain_mlip.potentials.eam.setfl_reading import read_setfl

        return read_setfl(path, elements)

    def pair_number(self, a: int, b: int) -> int:
        """Index of an unordered pair of types in ``pairs``."""
        return self.pairs.index((min(a, b), max(a, b)))

    def pair(self, a: int, b: int, distance: Tensor) -> tuple[Tensor, Tensor]:
        morse, morse_slope = self.morse(a, b, distance)
        wall, wall_slope = self.wall(a, b, distance)
        return morse + wall, morse_slope + wall_slope

    def pair_parts(self, a: int, b: int, distance: Tensor) -> dict[str, Tensor]:
        return {"morse": self.morse(a, b, distance)[0], "wall": self.wall(a, b, distance)[0]}

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
        column = centre if self.form == "fs" else 0
        if self.form == "fs":
            total = self.covalent_sum(source, centre)
        else:
            total = max(self.covalent_sum(source, other) for other in range(len(self.elements)))
        amplitude, decay = self.log_amplitude[source, column].exp(), self.log_decay[source, column].exp()
        # slopes of tables see up to three nodes ahead: nothing of the fall beyond from inside FLAT, here as in LAMMPS
        flat, flat_slope = flattened(distance, FLAT[0] * total + 3.0 * SPACING, FLAT[1] * total)
        value = amplitude * torch.exp(-decay * (flat - total))
        taper, taper_slope = switch(distance, TAPER_START * self.cutoff, self.cutoff)
        return value * taper, value * (taper_slope - decay * flat_slope * taper)

    def embedding(self, types: Tensor, density: Tensor) -> tuple[Tensor, Tensor]:
        root, square = self.log_root.exp().index_select(0, types), self.log_square.exp().index_select(0, types)
        linear = self.linear.index_select(0, types)
        smooth_root = torch.sqrt(density + DELTA)
        damping = 1.0 / (1.0 + density / KAPPA)
        value = -root * (smooth_root - DELTA**0.5) + linear * density + square * density.square() * damping
        slope = -0.5 * root / smooth_root + linear + square * density * damping * (1.0 + damping)
        return value, slope

    def tabulate(self) -> Functions:
        count, points = len(self.elements), round(np.ceil(self.cutoff / SPACING)) + 1
        distance = torch.linspace(0.0, self.cutoff, points, dtype=torch.float64)
        distance[0] = 1e-6  # r phi has a limit there, phi has none
        step = self.cutoff / (points - 1)
        values = torch.stack([self.pair(a, b, distance)[0] for a, b in self.pairs])
        product = distance * values[[self.pair_number(a, b) for a in range(count) for b in range(count)]]
        columns = range(count) if self.form == "fs" else range(1)
        densities = [self.density(source, centre, distance)[0] for source in range(count) for centre in columns]
        density = torch.stack(densities)
        # slopes as LAMMPS takes them: at the joints of the functions, where third derivatives jump, exact ones would
        # give forces that differ from those of the exported tables by 1e-4 eV/Å
        return Functions(
            cubics(product, slopes_of_samples(product, step), step),
            cubics(density, slopes_of_samples(density, step), step),
            count,
            self.form == "fs",
            self.cutoff,
        )
