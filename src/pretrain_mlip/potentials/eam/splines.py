"""Functions on a uniform grid as piecewise cubics: what every embedded-atom potential is evaluated from.

A row of a table is one function, sampled at the nodes 0, h, 2h, ...; between two nodes it is the cubic polynomial that
has the values and slopes given there (Hermite), so the slope is continuous and is the exact derivative of the value.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Cubics(NamedTuple):
    """Rows of piecewise cubics on one grid.

    c0 ... c3 are (rows * nodes,): of the interval that starts at each node, polynomials of u = (x - node) / h. The last
    node starts an interval of zeros, where everything beyond the end of a table is looked up.
    """

    c0: Tensor
    c1: Tensor
    c2: Tensor
    c3: Tensor
    nodes: int
    step: float

    def value(self, place: Tensor, u: Tensor) -> Tensor:
        """Values (E,) in the intervals ``place`` (E,)."""
        c0, c1, c2, c3 = (c.index_select(0, place) for c in self[:4])
        return torch.addcmul(c0, u, torch.addcmul(c1, u, torch.addcmul(c2, u, c3)))

    def both(self, place: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Values and derivatives."""
        c0, c1, c2, c3 = (c.index_select(0, place) for c in self[:4])
        inner = torch.addcmul(c2, u, c3)
        value = torch.addcmul(c0, u, torch.addcmul(c1, u, inner))
        slope = torch.addcmul(c1, u, torch.addcmul(inner, u, c3, value=0.5), value=2.0)
        return value, slope.mul_(1.0 / self.step)


def cubics(values: Tensor, slopes: Tensor, step: float) -> Cubics:
    """Piecewise cubics from values and slopes (rows, nodes) at the nodes; differentiable by both."""
    rise = torch.diff(values, dim=1)
    left, right = slopes[:, :-1] * step, slopes[:, 1:] * step
    parts = (values[:, :-1], left, 3.0 * rise - 2.0 * left - right, left + right - 2.0 * rise)
    padded = [torch.nn.functional.pad(part, (0, 1)).reshape(-1) for part in parts]
    return Cubics(padded[0], padded[1], padded[2], padded[3], values.shape[1], step)


def slopes_of_samples(values: Tensor, step: float) -> Tensor:
    """Slopes (rows, nodes) of samples by the differences that LAMMPS takes: five points inside, fewer at the ends."""
    rise = torch.diff(values, dim=1)
    first, last = rise[:, :1], rise[:, -1:]
    second, last_but_one = 0.5 * (values[:, 2:3] - values[:, :1]), 0.5 * (values[:, -1:] - values[:, -3:-2])
    inside = (values[:, :-4] - values[:, 4:] + 8.0 * (values[:, 3:-1] - values[:, 1:-3])) / 12.0
    return torch.cat([first, second, inside, last_but_one, last], dim=1) / step


def look_up(table: Cubics, row: int, x: Tensor, end: float) -> tuple[Tensor, Tensor]:
    """Values and derivatives of one row at x >= 0; zero from ``end`` on."""
    scaled = x / table.step
    interval = scaled.to(torch.int64).clamp_(max=table.nodes - 2)
    u = (scaled - interval).clamp_(max=1.0)
    return table.both(torch.where(x < end, interval, table.nodes - 1) + row * table.nodes, u)
