"""The fitted embedded-atom potential: Morse pairs, densities of an exponential and a shell, a convex embedding, a wall.

phi = D [(1 - exp(-a (r - r0)))² - 1] c(r) + ZBL(r) w(r) (Morse, Phys. Rev. 34, 57 (1929)), with c the taper to the
cutoff and w the fade of the universal repulsion between 0.35 and 0.70 of the sum of covalent radii s. The Morse minimum
lies outside 0.70 s by construction; inside 0.61 s the Morse part goes on with a constant slope, so that a steep one,
fitted to pairs that never come close, does not rise to absurd heights.

f = [A exp(-b (q - s)) + B exp(-((q - m)/v)²)] c(r), where q(r) is the distance above 0.70 s and a constant below
0.61 s. The Gaussian is a shell of neighbours that counts for more than the exponential says. An atom at contact changes
no density: inside 0.60 s the force between two atoms is that of phi alone, strictly repulsive and steepening, whatever
the data said and whatever surrounds the pair. That is the wall, and no fit can remove it. The form ``alloy`` has one
density per source element (s is then the largest of its pairs), ``fs`` one per source and centre (Finnis and Sinclair,
Philos. Mag. A 50, 45 (1984)).

F = -k1 g(x) + k2 x + k3 x²/(1 + x/kappa), g = sqrt(x + delta) - sqrt(delta), where x is the density divided by what
atoms of the element have on average when the fit begins. F(0) = 0; F is convex because k1 and k3 are positive (a
further neighbour binds less than the one before), and linear far above the data, where LAMMPS continues it linearly and
other codes by its spline.
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
# Of the covalent sum: where the density turns constant. A little outside contact, 0.60, because slopes of tables see up
# to three nodes ahead: nothing of the fall beyond from inside contact, here as in LAMMPS.
FLAT = (0.61, 0.70)
MORSE_START = 0.70  # of the covalent sum: r0 lies outside
DELTA = 0.05  # smooths the square root at zero density
KAPPA = 5.0  # where the quadratic part turns linear
SHELL = 1.65  # of the covalent sum: where the shell of a density starts out
SPACING = 0.002  # Å at most between the nodes of tables: cubics are then good to 3e-8 eV Å, at their joints


class EAM(EmbeddedAtom):
    """An embedded-atom potential with the functions above.

    Parameters are stored as logarithms where they must be positive; ``parameters`` names them as the equations do.
    P = S (S + 1) / 2 pairs in the order of ``pairs``; densities are (S, S), row the source, column the centre, or
    (S, 1) in the form ``alloy``.
    """

    kind = "eam"
    density_scale: Tensor

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
            return nn.Parameter(torch.full(tuple(shape), float(np.log(value)), dtype=torch.float64))

        reach = torch.tensor(
            [[self.density_sum(source, centre) for centre in range(sources[1])] for source in range(count)],
            dtype=torch.float64,
        )
        minima = (1.05 - MORSE_START) * torch.tensor(sums, dtype=torch.float64)
        self.log_depth = filled([len(self.pairs)], 0.5)
        self.log_width = filled([len(self.pairs)], 1.5)
        self.log_minimum = nn.Parameter(torch.log(minima))
        self.log_amplitude = filled(sources, 0.3)
        self.log_decay = filled(sources, 1.5)
        self.log_shell = filled(sources, 0.03)
        self.log_shell_distance = nn.Parameter(torch.log((SHELL - FLAT[1]) * reach))
        self.log_shell_width = filled(sources, 1.0)
        self.log_root = filled([count], 1.0)
        self.linear = nn.Parameter(torch.zeros(count, dtype=torch.float64))
        self.log_square = filled([count], 0.1)
        self.register_buffer("density_scale", torch.ones(count, dtype=torch.float64))

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
        """The tapered Morse part of phi and its derivative; inside contact it goes on with a constant slope."""
        number, total = self.pair_number(a, b), self.covalent_sum(a, b)
        depth, width = self.log_depth[number].exp(), self.log_width[number].exp()
        minimum = MORSE_START * total + self.log_minimum[number].exp()
        flat, flat_slope = flattened(distance, FLAT[0] * total, FLAT[1] * total)
        decay = torch.exp(-width * (flat - minimum))
        inner_slope, curvature = 2.0 * depth * width * decay * (1.0 - decay), 2.0 * depth * width**2 * decay
        inside = distance - flat
        value = depth * decay * (decay - 2.0) + inner_slope * inside
        slope = inner_slope + curvature * (2.0 * decay - 1.0) * flat_slope * inside
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
        place = source, centre if self.form == "fs" else 0
        total = self.density_sum(source, centre)
        flat, flat_slope = flattened(distance, FLAT[0] * total, FLAT[1] * total)
        amplitude, decay = self.log_amplitude[place].exp(), self.log_decay[place].exp()
        height, width = self.log_shell[place].exp(), self.log_shell_width[place].exp()
        offset = (flat - FLAT[1] * total - self.log_shell_distance[place].exp()) / width
        tail, shell = amplitude * torch.exp(-decay * (flat - total)), height * torch.exp(-offset.square())
        value, slope = tail + shell, (-decay * tail - (2.0 / width) * offset * shell) * flat_slope
        taper, taper_slope = switch(distance, TAPER_START * self.cutoff, self.cutoff)
        return value * taper, slope * taper + value * taper_slope

    def density_sum(self, source: int, centre: int) -> float:
        """The sum of covalent radii (Å) that scales a density; in the form ``alloy`` the largest of the source."""
        centres = [centre] if self.form == "fs" else range(len(self.elements))
        return max(self.covalent_sum(source, other) for other in centres)

    def embedding(self, types: Tensor, density: Tensor) -> tuple[Tensor, Tensor]:
        root, square = self.log_root.exp().index_select(0, types), self.log_square.exp().index_select(0, types)
        linear, scale = self.linear.index_select(0, types), self.density_scale.index_select(0, types)
        x = density / scale
        smooth_root = torch.sqrt(x + DELTA)
        damping = 1.0 / (1.0 + x / KAPPA)
        value = -root * (smooth_root - DELTA**0.5) + linear * x + square * x.square() * damping
        slope = -0.5 * root / smooth_root + linear + square * x * damping * (1.0 + damping)
        return value, slope / scale

    def tabulate(self) -> Functions:
        count, points = len(self.elements), round(np.ceil(self.cutoff / SPACING)) + 1
        distance = torch.linspace(0.0, self.cutoff, points, dtype=torch.float64, device=self.e0.device)
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
