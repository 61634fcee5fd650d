"""Loss and error sums of energies per atom, forces and stress."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Data

from pretrain_mlip import keys
from pretrain_mlip.graphs.graph import batch_index
from pretrain_mlip.training.settings import LossSettings


def weighted_loss(prediction: dict[str, Tensor], graph: Data, settings: LossSettings, scale: float) -> Tensor:
    """Loss of a batch; labels that are nan are left out, structures count by their config_weight."""
    atoms = torch.bincount(batch_index(graph), minlength=graph[keys.ENERGY].shape[0]).to(torch.float64)
    weight = graph[keys.CONFIG_WEIGHT]
    energy = (prediction[keys.ENERGY] - graph[keys.ENERGY]) / (atoms * scale)
    loss = settings.energy * _mean(energy[:, None], weight, settings)
    if settings.forces > 0:
        forces = (prediction[keys.FORCES] - graph[keys.FORCES]) / scale
        loss = loss + settings.forces * _mean(forces, weight[batch_index(graph)], settings)
    if settings.stress > 0 and keys.STRESS in prediction:
        volume = (graph[keys.VOLUME] / (atoms * scale))[:, None]
        loss = loss + settings.stress * _mean((prediction[keys.STRESS] - graph[keys.STRESS]) * volume, weight, settings)
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
        known = residual[torch.isfinite(graph[name].reshape(residual.shape))]
        sums[name] = (float(known.abs().sum()), known.numel())
    return sums


def _mean(residual: Tensor, weight: Tensor, settings: LossSettings) -> Tensor:
    """Weighted mean of the loss over rows (M, K) whose values are all known."""
    known = torch.isfinite(residual.detach()).all(1).nonzero().squeeze(1)
    if known.numel() == 0:
        return residual.new_zeros(())
    values = residual.index_select(0, known)
    if settings.kind == "mse":
        values = values.square()
    elif settings.kind == "mae":
        values = values.abs()
    else:  # divided by delta: the slope far out is one whatever delta is
        values = torch.nn.functional.huber_loss(
            values, torch.zeros_like(values), reduction="none", delta=settings.huber_delta
        )
        values = values / settings.huber_delta
    weight = weight.index_select(0, known)
    return (values.mean(1) * weight).sum() / weight.sum()
