"""Weights to start from in place of a pretraining of one's own: any checkpoint of ours, MatGL's or TorchMD-NET's."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from ase import Atoms
from torch import nn

from pretrain_mlip.calculators.batched import predict
from pretrain_mlip.config import ModelSettings, RunConfig
from pretrain_mlip.errors import InputError
from pretrain_mlip.pipeline.folder import FOUNDATION, RunFolder
from pretrain_mlip.potentials.base import Potential, ReferenceEnergies, SumPotential
from pretrain_mlip.potentials.checkpoint import load_potential
from pretrain_mlip.potentials.ensemble import Ensemble
from pretrain_mlip.potentials.networks import build_model
from pretrain_mlip.potentials.networks.base import Network
from pretrain_mlip.structures.io import labels_of
from pretrain_mlip.structures.labels import set_labels
from pretrain_mlip.structures.reference_energies import fit_reference_energies
from pretrain_mlip.training.settings import ElementMatch

log = logging.getLogger(__name__)


def read_foundation(path: Path) -> Network:
    """The network in a checkpoint of ours, a folder of MatGL's or a ``.ckpt`` of TorchMD-NET's.

    Raises:
        InputError: the file cannot be read, or its energies are not those of a network and reference energies alone.
    """
    if path.is_dir():
        from pretrain_mlip.potentials.networks.from_matgl import potential_from_matgl

        potential = potential_from_matgl(path)
    elif path.suffix == ".ckpt":
        from pretrain_mlip.potentials.networks.from_torchmd_net import potential_from_torchmd_net

        potential = potential_from_torchmd_net(path)
    else:
        potential = load_potential(path)
    return network_of(potential, str(path))


def network_of(potential: Potential, name: str) -> Network:
    """The network of a potential that is one, or one and reference energies.

    Raises:
        InputError: it is something else.
    """
    parts = potential.potentials() if isinstance(potential, SumPotential) else [potential]
    networks = [part for part in parts if isinstance(part, Network)]
    others = [part.kind for part in parts if not isinstance(part, Network | ReferenceEnergies)]
    if len(networks) != 1 or others:
        found = ", ".join(part.kind for part in parts)
        member = "a member of it, such as member-0/best.pt beside it" if Ensemble.kind in others else ""
        raise InputError(
            f"{name}: finetuning starts from one network beside reference energies, and this is {found}; start from "
            f"{member or 'the checkpoint of another strategy'}"
        )
    return networks[0]


def references_of(potential: Potential) -> ReferenceEnergies:
    """The reference energies of a potential made by ``reconciled``."""
    parts = potential.potentials() if isinstance(potential, SumPotential) else []
    (found,) = [part for part in parts if isinstance(part, ReferenceEnergies)]
    return found


def foundation_model(config: RunConfig) -> ModelSettings:
    """The network in the checkpoint that finetuning starts from, which is that of the whole run.

    Raises:
        InputError: see ``read_foundation``; or the configuration names another network.
    """
    kept = [RunFolder(config.output).foundation, *Path(config.output).glob(f"seed-*/models/{FOUNDATION}/best.pt")]
    path = next((path for path in kept if path.exists()), Path(str(config.finetuning.start)))
    network = read_foundation(path).config()
    found = ModelSettings(name=network["kind"], hyperparameters=network["hyperparameters"])
    asked = config.model.model_dump(exclude_unset=True)
    other = asked.get("name", found.name) != found.name or any(
        found.hyperparameters.get(name) != value for name, value in asked.get("hyperparameters", {}).items()
    )
    if other:
        raise InputError(
            f"model: {asked} is asked for, but {path} holds {found.name} with {found.hyperparameters}; leave out "
            "'model' to finetune that"
        )
    return found


def with_elements(network: Network, elements: Sequence[str], match: ElementMatch, name: str) -> Network:
    """The network for other elements: what belongs to an element goes with its symbol, all other weights stay.

    Args:
        network: to be copied.
        elements: of the result, in its order.
        match: "same": both have the same elements; "subset": others of the network may be dropped; "any": elements that
            it lacks may be added too, with weights that are the mean of those it has.
        name: of the network, for messages.

    Raises:
        InputError: elements differ by more than allowed.
    """
    missing = [symbol for symbol in elements if symbol not in network.elements]
    dropped = [symbol for symbol in network.elements if symbol not in elements]
    if missing and match != "any":
        raise InputError(
            f"{name}: knows nothing of {', '.join(missing)}, which the data have; finetuning.elements=any adds "
            "elements with average weights"
        )
    if dropped and match == "same":
        shown = ", ".join(dropped[:10]) + (", ..." if len(dropped) > 10 else "")
        raise InputError(
            f"{name}: is for {len(dropped)} elements that the data lack ({shown}); finetuning.elements=subset drops "
            "them"
        )
    config = network.config()
    other = build_model(config["kind"], elements, **config["hyperparameters"])
    other.to(network.energy_scale.dtype)
    state = network.state_dict()
    for key, module in network.named_modules():
        if isinstance(module, nn.Embedding) and module.num_embeddings == len(network.elements):
            rows = module.weight.detach()
            kept = {symbol: rows[place] for place, symbol in enumerate(network.elements)}
            state[f"{key}.weight"] = torch.stack([kept.get(symbol, rows.mean(0)) for symbol in elements])
    other.load_state_dict(state)
    if missing:
        log.warning("%s: added %s with average weights", name, ", ".join(missing))
    if dropped:
        log.info("%s: dropped %d elements that the data lack", name, len(dropped))
    return other.eval().requires_grad_(False)  # noqa: FBT003


def reconciled(network: Network, frames: Sequence[Atoms], given: Mapping[str, float] | None = None) -> Potential:
    """The network with reference energies that bring it closest to the labels of other frames.

    Energies of two sources differ by a constant for every element, whatever reference each took: the reference energies
    are fitted to labels minus the network's predictions.

    Args:
        network: of the elements of the frames.
        frames: with labels.
        given: energies (eV) of free atoms that have to come out.
    """
    energies = predict(network, frames, description="energies before finetuning")
    rest = []
    for atoms, predicted in zip(frames, energies, strict=True):
        known = labels_of(atoms).energy
        copy = atoms.copy()
        set_labels(copy, None if known is None or predicted.energy is None else known - predicted.energy, None)
        rest.append(copy)
    asked = {symbol: energy for symbol, energy in (given or {}).items() if symbol in network.elements}
    alone = predict(network, [Atoms(symbol) for symbol in asked], description="")
    fixed = {
        symbol: energy - float(found.energy or 0.0)
        for (symbol, energy), found in zip(asked.items(), alone, strict=True)
    }
    fitted = fit_reference_energies(rest, fixed)
    return SumPotential([ReferenceEnergies({symbol: fitted[symbol] for symbol in network.elements}), network])
