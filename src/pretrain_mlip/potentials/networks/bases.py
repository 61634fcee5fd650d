"""Radial bases and envelopes that networks share."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GaussianBasis(nn.Module):
    """Gaussians on a grid of distances, as in CGCNN: exp(-(r - mu_k)² / width²), width the spacing of the grid."""

    centers: Tensor

    def __init__(self, start: float, end: float, size: int) -> None:
        super().__init__()
        self.register_buffer("centers", torch.linspace(start, end, size))
        self.inverse_width = (size - 1) / (end - start)

    def forward(self, distance: Tensor) -> Tensor:
        """(E,) Å -> (E, K)."""
        return torch.exp(-((distance[:, None] - self.centers) * self.inverse_width).square())


def polynomial_envelope(distance: Tensor, cutoff: float, power: int = 6) -> Tensor:
    """1 at zero, 0 at and beyond the cutoff with two continuous derivatives.

    Gasteiger, Groß and Günnemann, Directional message passing for molecular graphs (2020), equation 8.
    """
    x = (distance / cutoff).clamp(max=1.0)
    p = float(power)
    return 1.0 + x**power * (-0.5 * (p + 1) * (p + 2) + x * (p * (p + 2) - 0.5 * p * (p + 1) * x))
