"""Loss and error sums of energies per atom, forces and stress."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import huber_loss
from torch_geometric.data import Data

from pretrain_mlip import keys
from pretrain_mlip.graphs.graph import batch_index
from pretrain_mlip.training.settings import Cost, LossSettings


@dataclass(frozen=True, slots=True)
class LossTerm:
    """A part of the loss of a batch, before the mean: batches are shared by processes, which count together.

    Attributes:
        total: sum over what is labelled (structures, or atoms for forces) of weighted costs.
        count: how many these are; structures of weight zero count too.
    """

    total: Tensor
    count: Tensor


def loss_terms(prediction: dict[str, Tensor], graph: Data, settings: LossSettings, scale: float) -> dict[str, LossTerm]:
    """What each label adds to the loss of a batch; labels that are nan are left out, structures have weights.

    Args:
        prediction: of ``Potential.forward``.
        graph: the batch, with labels.
        settings: costs; terms whose weight is zero throughout are left out.
        scale: eV, energy scale of the network.
    """
    batch, weight = batch_index(graph), graph[keys.CONFIG_WEIGHT]
    per_atom = 1.0 / (torch.bincount(batch, minlength=weight.shape[0]) * scale)
    factors = {
        keys.ENERGY: per_atom,
        keys.FORCES: weight.new_full(batch.shape, 1.0 / scale),
        keys.STRESS: graph[keys.VOLUME] * per_atom,
    }
    terms = {}
    for name, factor in factors.items():
        term = getattr(settings, name)
        if not term.used:
            continue
        rows = weight.index_select(0, batch) if name == keys.FORCES else weight
        label = graph[name].reshape(rows.shape[0], -1)
        predicted = prediction[name].reshape(label.shape)
        # Rows are chosen before any arithmetic: 0 times nan is nan in a gradient too
        known = (~torch.isnan(label).any(1)).nonzero().squeeze(1)
        residual = predicted.index_select(0, known) - label.index_select(0, known)
        residual = residual * factor.index_select(0, known)[:, None]
        costs = cost(residual, term.kind or settings.kind, settings.huber_delta).mean(1)
        terms[name] = LossTerm((costs * rows.index_select(0, known)).sum(), weight.new_tensor(float(known.numel())))
    return terms


def weighted_loss(terms: dict[str, LossTerm], settings: LossSettings, progress: float = 0.0) -> Tensor:
    """The weighted sum of the means of all terms.

    Args:
        terms: of ``loss_terms``; counts may be those of all processes.
        settings: weights.
        progress: of the training, from 0 to 1, for weights that change.
    """
    return torch.stack(
        [
            getattr(settings, name).at(progress) * term.total / torch.where(term.count > 0, term.count, 1.0)
            for name, term in terms.items()
        ]
    ).sum()


def error_sums(prediction: dict[str, Tensor], graph: Data) -> dict[str, Tensor]:
    """Sums of absolute errors of each structure and the numbers of their terms.

    Returns:
        (B, 2) for each label: energy in eV/atom, forces in eV/Å, stress in eV/Å³; numbers are zero without a label.
    """
    batch = batch_index(graph)
    structures = graph[keys.ENERGY].shape[0]
    atoms = torch.bincount(batch, minlength=structures)
    residuals = {
        keys.ENERGY: ((prediction[keys.ENERGY] - graph[keys.ENERGY]) / atoms)[:, None],
        keys.FORCES: prediction[keys.FORCES] - graph[keys.FORCES],
        keys.STRESS: prediction[keys.STRESS] - graph[keys.STRESS],
    }
    sums = {}
    for name, residual in residuals.items():
        known = ~torch.isnan(graph[name].reshape(residual.shape))
        rows = torch.stack([residual.abs().where(known, 0.0).sum(1), known.sum(1).to(residual.dtype)], dim=1)
        sums[name] = rows.new_zeros(structures, 2).index_add(0, batch, rows) if name == keys.FORCES else rows
    return sums


def cost(residual: Tensor, kind: Cost, delta: float) -> Tensor:
    """Cost of residuals, element by element."""
    if kind == "l2":
        return residual.square()
    if kind == "l1":
        return residual.abs()
    # divided by delta: the slope far out is one whatever delta is
    return huber_loss(residual, torch.zeros_like(residual), reduction="none", delta=delta) / delta
