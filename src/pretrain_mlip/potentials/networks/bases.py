"""Radial and angular bases, and the envelopes that networks share.

Bases of few functions are stored function by function (the transpose of a contiguous tensor): a product of a long with
a narrow matrix, as in their derivatives, is then four times faster.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import spherical_jn
from torch import Tensor, nn

NEGLIGIBLE = -math.log(torch.finfo(torch.float64).eps)


class Constants(nn.Module):
    """A module whose buffers follow it to a device, but stay float64 whatever precision its network is given.

    They are cast where they are used. Cast for good, float32 would leave its error in all that comes after it.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Constants:  # noqa: FBT001, FBT002
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, values in before.items():
            moved = self._buffers[name]
            if values is not None and moved is not None and moved.dtype != values.dtype:
                self._buffers[name] = values.to(moved.device)
        return self


def gaussian(exponent: Tensor) -> Tensor:
    """exp(-exponent), and zero where that is less than float64 resolves beside 1.

    Tails of gaussians are subnormal numbers in float32, and so are products with what is a little larger. Processors
    take a hundred times longer for these: a step of a training took four times as long for CGCNN, three times for the
    transformer.
    """
    return torch.exp(-exponent.clamp(max=NEGLIGIBLE)) * (exponent < NEGLIGIBLE)


class GaussianBasis(nn.Module):
    """Gaussians on a grid of distances, as in CGCNN: exp(-(r - mu_k)² / width²), width the spacing of the grid."""

    centers: Tensor

    def __init__(self, start: float, end: float, size: int) -> None:
        super().__init__()
        self.register_buffer("centers", torch.linspace(start, end, size))
        self.inverse_width = (size - 1) / (end - start)

    def forward(self, distance: Tensor) -> Tensor:
        """(E,) Å -> (E, K)."""
        return gaussian(((distance[:, None] - self.centers) * self.inverse_width).square())


class SphericalBesselBasis(Constants):
    """Spherical Bessel functions that vanish at the cutoff, normalised in its sphere; columns (l, n), n the faster.

    sqrt(2 / rc³) / |j_{l+1}(z_ln)| j_l(z_ln r / rc), z_ln the n-th root of j_l: Gasteiger, Groß and Günnemann,
    Directional message passing for molecular graphs (2020), equation 7 before the angular part. Their slope at the
    cutoff is not zero: multiply by an envelope.
    """

    roots: Tensor
    norms: Tensor

    def __init__(self, cutoff: float, radial: int, angular: int) -> None:
        super().__init__()
        self.cutoff, self.radial, self.angular = cutoff, radial, angular
        self.size = radial * angular
        roots = _bessel_roots(angular, radial)  # (L, K)
        slopes = np.stack([spherical_jn(degree + 1, roots[degree]) for degree in range(angular)])
        self.register_buffer("roots", _constant(roots / cutoff), persistent=False)
        self.register_buffer("norms", _constant(math.sqrt(2 / cutoff**3) / np.abs(slopes)), persistent=False)

    def forward(self, distance: Tensor) -> Tensor:
        """(E,) Å -> (E, L K), each function contiguous."""
        constants = zip(self.roots.to(distance.dtype).unbind(), self.norms.to(distance.dtype).unbind(), strict=True)
        return torch.cat(
            [
                _spherical_bessel(degree, roots[:, None] * distance) * norms[:, None]
                for degree, (roots, norms) in enumerate(constants)
            ]
        ).t()


class SmoothBesselBasis(Constants):
    """Orthonormal combinations of sin(k pi r / rc) / r whose first two derivatives vanish at the cutoff.

    Kocer, Mason and Erturk, J. Chem. Phys. 150, 154102 (2019), equations 9 to 16.
    """

    coefficients: Tensor
    frequencies: Tensor

    def __init__(self, cutoff: float, size: int) -> None:
        super().__init__()
        self.cutoff, self.size = cutoff, size
        coefficients = np.zeros((size, size + 1))
        overlap = 1.0  # d_n of the reference
        for n in range(size):
            both = (n + 1) * (n + 2)
            plain = np.zeros(size + 1)
            plain[n : n + 2] = (-1) ** n * math.sqrt(2) * math.pi / cutoff**1.5 * both / math.hypot(n + 1, n + 2)
            square = n**2 * (n + 2) ** 2 / (4 * (n + 1) ** 4 + 1)
            if n == 0:
                coefficients[0] = plain
                continue
            before, overlap = overlap, 1 - square / overlap
            coefficients[n] = (plain + math.sqrt(square / before) * coefficients[n - 1]) / math.sqrt(overlap)
        self.register_buffer("coefficients", _constant(coefficients), persistent=False)
        self.register_buffer("frequencies", _constant(np.arange(1, size + 2) * math.pi / cutoff), persistent=False)

    def forward(self, distance: Tensor) -> Tensor:
        """(E,) Å -> (E, K), each function contiguous."""
        phase = self.frequencies.to(distance.dtype)[:, None] * distance  # (K + 1, E)
        return (self.coefficients.to(distance.dtype) @ (torch.sin(phase) / phase)).t()


def polynomial_envelope(distance: Tensor, cutoff: float, power: int = 6) -> Tensor:
    """1 at zero, 0 at and beyond the cutoff with two continuous derivatives.

    Gasteiger, Groß and Günnemann, Directional message passing for molecular graphs (2020), equation 8.
    """
    x = (distance / cutoff).clamp(max=1.0)
    p = float(power)
    return 1.0 + x**power * (-0.5 * (p + 1) * (p + 2) + x * (p * (p + 2) - 0.5 * p * (p + 1) * x))


def spherical_harmonics(directions: Tensor, angular: int) -> Tensor:
    """Real spherical harmonics of degrees 0 to L - 1, normalised so that sum_m Y_lm(u) Y_lm(v) = P_l(u · v).

    Polynomials of the components, without a pole: Y_lm = sqrt(2 (l-m)! / (l+m)!) d^m P_l(z)/dz^m (x + iy)^m, real part
    for m, imaginary part for -m; derivatives of Legendre polynomials by their three-term recurrence.

    Args:
        directions: (E, 3) unit vectors.
        angular: L.

    Returns:
        (L², E), the degrees after each other, 2l + 1 rows each.
    """
    x, y, z = directions.unbind(1)
    legendre: list[list[Tensor]] = []  # [l][m]
    for degree in range(angular):
        row = []
        for m in range(degree + 1):
            if m == degree:
                value = torch.full_like(z, float(math.prod(range(1, 2 * m, 2))))
            else:
                value = (2 * degree - 1) * z * legendre[degree - 1][m]
                if m < degree - 1:
                    value = value - (degree + m - 1) * legendre[degree - 2][m]
                value = value / (degree - m)
            row.append(value)
        legendre.append(row)
    powers = [(torch.ones_like(x), torch.zeros_like(x))]
    for _ in range(1, angular):
        real, imaginary = powers[-1]
        powers.append((x * real - y * imaginary, x * imaginary + y * real))
    rows = []
    for degree, row in enumerate(legendre):
        rows.append(row[0])
        for m in range(1, degree + 1):
            norm = math.sqrt(2 * math.factorial(degree - m) / math.factorial(degree + m))
            rows += [norm * row[m] * powers[m][0], norm * row[m] * powers[m][1]]
    return torch.stack(rows)


def _spherical_bessel(degree: int, x: Tensor) -> Tensor:
    """j_l by upward recurrence, which loses digits only where x is far below l: at distances without atoms."""
    sine, inverse = torch.sin(x), 1 / x
    before = sine * inverse
    if degree == 0:
        return before
    current = (before - torch.cos(x)) * inverse
    for order in range(1, degree):
        before, current = current, (2 * order + 1) * inverse * current - before
    return current


def _bessel_roots(angular: int, radial: int) -> np.ndarray:
    """(L, K) positive roots of j_l, each between two of j_{l-1}."""
    roots = math.pi * np.arange(1, radial + angular + 1)
    rows = [roots[:radial]]
    for degree in range(1, angular):
        roots = np.array([brentq(lambda x, n=degree: spherical_jn(n, x), a, b, xtol=1e-14) for a, b in pairwise(roots)])
        rows.append(roots[:radial])
    return np.stack(rows)


def _constant(values: np.ndarray) -> Tensor:
    """For a buffer of ``Constants``."""
    return torch.from_numpy(np.ascontiguousarray(values))
