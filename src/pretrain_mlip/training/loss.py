"""Loss and error sums of energies per atom, forces and stress."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Data

from pretrain_mlip import keys
from pretrain_mlip.graphs.graph import batch_index
from pretrain_mlip.training.settings import LossSettings


def weighted_loss(prediction: dict[str, Tensor], graph: Data, settings: LossSettings, scale: float) -> Tensor:
    """Loss of a batch; labels that are nan are left out, structures count by their config_weight.

    Args:
        prediction: of ``Potential.forward``.
        graph: the batch, with labels.
        settings: weights and kind.
        scale: eV, energy scale of the network.
    """
    batch, weight = batch_index(graph), graph[keys.CONFIG_WEIGHT]
    per_atom = 1.0 / (torch.bincount(batch, minlength=graph[keys.ENERGY].shape[0]) * scale)

    def term(name: str, factor: Tensor, weight: Tensor) -> Tensor:
        label = graph[name].reshape(weight.shape[0], -1)
        known = (~torch.isnan(label).any(1)).nonzero().squeeze(1)
        if known.numel() == 0:
            return label.new_zeros(())
        # Rows are chosen before any arithmetic: 0 times nan is nan in a gradient too
        predicted, label = prediction[name].reshape(label.shape).index_select(0, known), label.index_select(0, known)
        residual = (predicted - label) * factor.index_select(0, known)
        return (_cost(residual, settings).mean(1) * weight.index_select(0, known)).mean()

    loss = settings.energy * term(keys.ENERGY, per_atom[:, None], weight)
    if settings.forces > 0:
        loss = loss + settings.forces * term(
            keys.FORCES, torch.full_like(weight, 1.0 / scale)[batch][:, None], weight.index_select(0, batch)
        )
    if settings.stress > 0:
        loss = loss + settings.stress * term(keys.STRESS, (graph[keys.VOLUME] * per_atom)[:, None], weight)
    return loss


def error_sums(prediction: dict[str, Tensor], graph: Data) -> dict[str, tuple[float, int]]:
    """Sums of absolute errors and their numbers: energy in eV/atom, forces in eV/Å, stress in eV/Å³."""
    atoms = torch.bincount(batch_index(graph), minlength=graph[keys.ENERGY].shape[0])
    residuals = {
        keys.ENERGY: (prediction[keys.ENERGY] - graph[keys.ENERGY]) / atoms,
        keys.FORCES: prediction[keys.FORCES] - graph[keys.FORCES],
        keys.STRESS: prediction[keys.STRESS] - graph[keys.STRESS],
    }
    sums = {}
    for name, residual in residuals.items():
        known = residual[~torch.isnan(graph[name].reshape(residual.shape))]
        sums[name] = (float(known.abs().sum()), known.numel())
    return sums


def _cost(residual: Tensor, settings: LossSettings) -> Tensor:
    if settings.kind == "mse":
        return residual.square()
    if settings.kind == "mae":
        return residual.abs()
    zero = torch.zeros_like(residual)
    # divided by delta: the slope far out is one whatever delta is
    return (
        torch.nn.functional.huber_loss(residual, zero, reduction="none", delta=settings.huber_delta)
        / settings.huber_delta
    )
