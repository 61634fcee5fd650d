"""Strategies: which labels a network learns, what is subtracted from them first, and which weights it starts from.

``vanilla``   DFT labels, random weights.
``sam``       likewise, with sharpness-aware steps.
``pretrain``  EAM labels of perturbed structures, random weights.
``finetune``  DFT labels, the weights of ``pretrain``; nothing is frozen unless asked for.
``replay``    likewise, with some perturbed structures of ``pretrain`` in every batch, so that what they taught is not
              forgotten.
``delta``     DFT labels minus the EAM, the weights of ``pretrain`` (random ones where ``delta.pretrained`` is false)
              but for a last layer of zeros, so that training starts from the EAM itself with features that know atoms;
              deployed as EAM + network. With ``delta.replay`` the network is held at zero on perturbed structures.

All but ``delta`` learn energies relative to the reference energies of the elements, which are added again where the
network is deployed. DFT strategies share the data, the number of epochs and the batch size, hence the gradient steps.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

import torch
from ase import Atoms
from lightning_fabric import Fabric
from torch_geometric.data import Data

from pretrain_mlip import keys
from pretrain_mlip.console import track
from pretrain_mlip.errors import InputError
from pretrain_mlip.graphs.graph import make_batch, make_graph
from pretrain_mlip.graphs.sequences import Weighted, edge_counts
from pretrain_mlip.potentials.base import Potential, SumPotential, dtype_named
from pretrain_mlip.potentials.networks import build_model
from pretrain_mlip.potentials.networks.base import Network
from pretrain_mlip.training.loop import Training, TrainingResult
from pretrain_mlip.training.loss import error_sums
from pretrain_mlip.training.settings import ReplaySettings, StrategyName, TrainingSettings

log = logging.getLogger(__name__)
_AT_ONCE = 8  # structures of a batch that is only looked at


@dataclass(frozen=True)
class Strategy:
    """What distinguishes one training from another.

    Attributes:
        labels: "dft" or "eam" (perturbed structures).
        baseline: what is subtracted before and added after: "e0" or "eam".
        start: the strategy whose weights it starts from.
        sharpness_aware: steps are.
        replay: perturbed structures join every batch.
    """

    labels: Literal["dft", "eam"] = "dft"
    baseline: Literal["e0", "eam"] = "e0"
    start: StrategyName | None = None
    sharpness_aware: bool = False
    replay: bool = False


STRATEGIES: dict[StrategyName, Strategy] = {
    "vanilla": Strategy(),
    "sam": Strategy(sharpness_aware=True),
    "pretrain": Strategy(labels="eam"),
    "finetune": Strategy(start="pretrain"),
    "replay": Strategy(start="pretrain", replay=True),
    "delta": Strategy(baseline="eam", start="pretrain"),
}
assert set(STRATEGIES) == set(get_args(StrategyName))  # noqa: S101  # the type and the table name the same strategies


def with_prerequisites(
    names: Sequence[StrategyName],
    strategies: Mapping[StrategyName, Strategy] = MappingProxyType(STRATEGIES),
    *,
    foundation: bool = False,
) -> list[StrategyName]:
    """The strategies and those whose weights they start from, in an order in which they can be trained.

    With a ``foundation``, weights from elsewhere, none is added.
    """
    ordered: list[StrategyName] = []

    def add(name: StrategyName) -> None:
        start = strategies[name].start
        if start is not None and not foundation:
            add(start)
        if name not in ordered:
            ordered.append(name)

    for name in names:
        add(name)
    return ordered


def residual_graphs(
    frames: Sequence[Atoms], cutoff: float, baseline: Potential, description: str = "graphs"
) -> list[Data]:
    """Graphs whose labels are those of the frames minus the baseline's prediction.

    Args:
        frames: structures with labels.
        cutoff: of the network, Å.
        baseline: reference energies, or an EAM.
        description: for the progress bar.
    """
    return [residual_graph(atoms, cutoff, baseline) for atoms in track(frames, description)]


def residual_graph(atoms: Atoms, cutoff: float, baseline: Potential) -> Data:
    """One of ``residual_graphs``."""
    graph = make_graph(atoms, cutoff, labels=True)
    interacts = baseline.cutoff > 0
    wide = make_graph(atoms, baseline.cutoff) if interacts else graph
    with torch.no_grad():
        known = baseline(wide, forces=interacts)
    graph[keys.ENERGY] = graph[keys.ENERGY] - known[keys.ENERGY]
    if interacts:
        graph[keys.FORCES] = graph[keys.FORCES] - known[keys.FORCES]
        graph[keys.STRESS] = graph[keys.STRESS] - known[keys.STRESS]
    return graph


def train_stage(
    name: StrategyName,
    model: str,
    hyperparameters: dict[str, Any],
    train: Sequence[Data],
    validation: Sequence[Data],
    baseline: Potential,
    settings: TrainingSettings,
    folder: Path,
    *,
    seed: int = 0,
    start: Network | None = None,
    fresh_output: bool = False,
    scale_from: Sequence[Data] | None = None,
    replayed: Sequence[Data] = (),
    replay: ReplaySettings | None = None,
    freeze: Sequence[str] = (),
    fabric: Fabric | None = None,
) -> TrainingResult:
    """Train one strategy, or continue it where its folder says it was.

    Args:
        name: for the messages.
        model: name of the network.
        hyperparameters: of the network.
        train: from ``residual_graphs`` with the same baseline.
        validation: likewise.
        baseline: added to the network in what is saved.
        settings: of the loop.
        folder: receives best.pt, last.pt, log.csv.
        seed: of the initial weights and of the order of structures.
        start: a trained network to start from.
        fresh_output: start with an output of zero, and the scales of ``train``: of a trained network the features are
            kept, the energies are not.
        scale_from: graphs that set the scales of a fresh network (default: ``train``).
        replayed: graphs that join the batches of ``train``, with the same baseline.
        replay: how many of them, and with which weight.
        freeze: parts of the network that keep the weights they start from.
        fabric: where it runs; None: in this process, on the CPU.

    Raises:
        InputError: the network to start from is another one, has no part that is to be frozen, or there is nothing to
            replay.
    """
    if (replay is None) != (not len(replayed)):
        raise InputError(
            f"{name}: replay needs structures with labels of the EAM, and these need settings of the replay; got "
            f"{len(replayed)} structures and {'no' if replay is None else 'its'} settings"
        )
    network = build_model(model, baseline.elements, seed=seed, **hyperparameters)
    network.set_dtype(dtype_named(settings.dtype))
    if start is None:
        network.set_scales(*_scales(scale_from or train))
        if fresh_output:
            network.reset_output()
    else:
        _start_from(start, network, name, train if fresh_output else None)
        settings = settings.model_copy(update={"learning_rate": settings.learning_rate or network.finetuning_rate})
        log.info(
            "%s starts from a pretrained network; errors on the validation set before training: %s",
            name,
            _errors(network, validation),
        )
    freeze_parts(network, freeze)

    def deploy(trained: Network) -> Potential:
        return SumPotential([baseline, trained])

    joining = () if replay is None else Weighted(replayed, replay.weight)
    size = 0 if replay is None else replay.size(settings.batch_size)
    training = Training(
        *(network, train, validation, settings, folder),
        seed=seed,
        deploy=deploy,
        fabric=fabric,
        replayed=joining,
        replay_size=size,
    )
    return training.run()


def _start_from(start: Network, network: Network, name: str, scale_from: Sequence[Data] | None) -> None:
    """Give a network the weights of another; with graphs to take scales from, its output is zero afterwards."""
    if start.config() != network.config():
        raise InputError(
            f"{name}: the pretrained network is another one ({start.config()}) than asked for ({network.config()})"
        )
    network.load_state_dict(start.state_dict())
    if scale_from is not None:
        network.set_scales(*_scales(scale_from))
        network.reset_output()


def freeze_parts(network: Network, names: Sequence[str]) -> None:
    """Keep parameters as they are: those of a part (``embedding``, ``blocks.0``), or one of them by its whole name.

    Raises:
        InputError: there is no such part, or nothing is left to be trained.
    """
    parameters = dict(network.named_parameters())
    for name in names:
        found = [key for key in parameters if key == name or key.startswith(f"{name}.")]
        if not found:
            parts = ", ".join(dict.fromkeys(key.split(".")[0] for key in parameters))
            raise InputError(f"freeze: '{name}' is no part of {network.kind}; its parts are {parts}")
        for key in found:
            parameters[key].requires_grad_(False)  # noqa: FBT003
    if not any(parameter.requires_grad for parameter in parameters.values()):
        raise InputError(f"freeze: nothing of {network.kind} is left to be trained")


def _scales(graphs: Sequence[Data]) -> tuple[float, float]:
    """Root mean square of the forces (eV/Å), and mean number of neighbours."""
    squares, components, atoms = 0.0, 0, 0
    for graph in graphs:
        forces = graph[keys.FORCES]
        known = forces[torch.isfinite(forces).all(1)]
        squares += float(known.square().sum())
        components += known.numel()
        atoms += len(forces)
    return (math.sqrt(squares / components) if components else 1.0), int(edge_counts(graphs).sum()) / atoms


def _errors(network: Network, validation: Sequence[Data]) -> str:
    sums = {keys.ENERGY: torch.zeros(2), keys.FORCES: torch.zeros(2)}
    for start in range(0, len(validation), _AT_ONCE):
        batch = make_batch(validation[start : start + _AT_ONCE])
        found = error_sums(network(batch), batch)
        sums = {name: total + found[name].sum(0) for name, total in sums.items()}
    energy, forces = (float(total / count) for total, count in sums.values())
    return f"energy {1e3 * energy:.1f} meV/atom, forces {1e3 * forces:.0f} meV/Å"
