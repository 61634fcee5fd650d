"""Sharpness-aware minimisation: the gradient is taken not at the weights but at the worst place near them.

Foret, Kleiner, Mobahi and Neyshabur (ICLR 2021, arXiv:2010.01412), in the adaptive form of Kwon, Kim, Park and Choi
(ICML 2021, arXiv:2102.11600), where "near" is measured relative to the size of each weight: with g the gradient and
T = |w| + eta (one for vectors, which are biases and scales of norms), the weights move to

    w + rho T² g / |T g|,

the gradient is computed there, the weights are put back, and any optimiser makes its step.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

ETA = 0.01  # of Kwon et al., for weights close to zero


class Ascent:
    """The way to the worst place and back."""

    def __init__(self, parameters: Iterable[nn.Parameter], rho: float) -> None:
        """For parameters that are trained; rho > 0."""
        self.parameters, self.rho = list(parameters), rho
        self.before: list[Tensor] = []

    @torch.no_grad()
    def climb(self) -> None:
        """Move the weights uphill along their gradients, and drop these; nothing moves where all are zero."""
        found = [(w, w.grad) for w in self.parameters if w.grad is not None]
        scales = [w.abs().add_(ETA) if w.dim() > 1 else torch.ones_like(w) for w, _ in found]
        norm = torch.stack([(scale * g).norm() for scale, (_, g) in zip(scales, found, strict=True)]).norm()
        self.before = [w.clone() for w in self.parameters]
        if norm > 0:
            for scale, (w, g) in zip(scales, found, strict=True):
                w.add_(scale.square().mul_(g), alpha=float(self.rho / norm))
        for w in self.parameters:
            w.grad = None

    @torch.no_grad()
    def descend(self) -> None:
        """Put the weights back, to the bit."""
        for w, before in zip(self.parameters, self.before, strict=True):
            w.copy_(before)
        self.before = []
