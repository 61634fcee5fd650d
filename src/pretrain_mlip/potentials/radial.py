"""Functions of a distance, each with its derivative: switches and the universal repulsion."""

from __future__ import annotations

import torch
from torch import Tensor

COULOMB = 14.399645478  # e²/(4 pi eps0), eV Å
BOHR = 0.529177210903  # Å
# Ziegler, Biersack, Littmark, The Stopping and Range of Ions in Matter (1985): amplitudes and exponents
ZBL_AMPLITUDES = (0.18175, 0.50986, 0.28022, 0.02817)
ZBL_EXPONENTS = (3.19980, 0.94229, 0.40290, 0.20162)


def switch(distance: Tensor, start: float | Tensor, end: float | Tensor) -> tuple[Tensor, Tensor]:
    """1 below ``start``, 0 above ``end``, a fifth-order polynomial between; value, slope, curvature continuous.

    ``start`` and ``end`` are in Å, the same for all distances or one for each.

    Returns:
        The value and its derivative (per Å).
    """
    x = ((distance - start) / (end - start)).clamp(0.0, 1.0)
    value = 1.0 - x * x * x * (10.0 + x * (6.0 * x - 15.0))
    slope = -30.0 * (x * (1.0 - x)).square() / (end - start)
    return value, slope


def flattened(distance: Tensor, start: float, end: float) -> tuple[Tensor, Tensor]:
    """The distance above ``end``, a constant below ``start``, joined with continuous slope and curvature.

    The slope between is the switch 10 u³ - 15 u⁴ + 6 u⁵ of u = (r - start)/(end - start), integrated.

    Returns:
        The value in Å and its derivative.
    """
    width = end - start
    u = ((distance - start) / width).clamp(0.0, 1.0)
    inner = 0.5 * (start + end) + width * u**4 * (2.5 + u * (u - 3.0))
    value = torch.where(distance < end, inner, distance)
    return value, u * u * u * (10.0 + u * (6.0 * u - 15.0))


def zbl(distance: Tensor, number_a: int | Tensor, number_b: int | Tensor) -> tuple[Tensor, Tensor]:
    """Universal screened Coulomb repulsion of two atoms, eV, and its derivative, eV/Å.

    Atomic numbers are the same for all distances or one for each.
    """
    screening = 0.8854 * BOHR / (number_a**0.23 + number_b**0.23)
    strength = COULOMB * number_a * number_b
    inverse = 1.0 / distance
    screened = torch.zeros_like(distance)
    slope = torch.zeros_like(distance)
    for amplitude, exponent in zip(ZBL_AMPLITUDES, ZBL_EXPONENTS, strict=True):
        term = amplitude * torch.exp(-(exponent / screening) * distance)
        screened = screened + term
        slope = slope - (exponent / screening) * term
    return strength * inverse * screened, strength * inverse * (slope - inverse * screened)
