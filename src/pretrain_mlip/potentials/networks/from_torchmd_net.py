"""Checkpoints of the program TorchMD-NET, its equivariant transformer, as potentials of ours."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ase.data import atomic_numbers, chemical_symbols
from torch import Tensor

from pretrain_mlip.errors import InputError
from pretrain_mlip.potentials.base import Potential, ReferenceEnergies, SumPotential
from pretrain_mlip.potentials.checkpoint import read_torch_file
from pretrain_mlip.potentials.networks.torchmd_net import TorchMDNet, TorchMDNetSettings
from pretrain_mlip.settings import validate

_SILU = ("silu", "swish")  # two names of one function
# What the options must be, and what they are in checkpoints older than the option; None where the option must be there
_REQUIRED: dict[str, tuple[tuple[Any, ...], Any]] = {
    "model": (("equivariant-transformer",), None),
    "output_model": (("Scalar",), None),
    "activation": (_SILU, None),
    "attn_activation": (_SILU, None),
    "rbf_type": (("expnorm",), None),
    "distance_influence": (("both",), None),
    "neighbor_embedding": ((True,), None),
    "cutoff_lower": ((0,), None),
    "reduce_op": (("add", "sum"), "add"),
    "atom_filter": ((-1,), -1),
    "precision": ((32, 64), 32),
    "charge": ((False, None), False),
    "spin": ((False, None), False),
}
_SETTINGS = {  # names of ours and of the original
    "cutoff": "cutoff_upper",
    "width": "embedding_dimension",
    "layers": "num_layers",
    "heads": "num_heads",
    "radial": "num_rbf",
    "trainable_basis": "trainable_rbf",
}
_PRIORS = ("Atomref", "LearnableAtomref")
_IGNORED = re.compile(r"representation_model\.distance\.box|prior_model\.0\.initial_atomref")


def potential_from_torchmd_net(path: str | os.PathLike[str], elements: Sequence[str] | None = None) -> Potential:
    """The potential in a checkpoint (.ckpt) that the training of TorchMD-NET wrote, with frozen weights.

    Energies and forces are those of the original, for cells of any size. Numbers are taken as they are: the checkpoint
    must have been trained in eV and Å.

    Args:
        path: the checkpoint; code in it is not run.
        elements: chemical symbols to keep; None keeps all that the checkpoint has a row for, trained or not.

    Returns:
        The network, with the envelope and the norms of the original; with a prior Atomref the sum of reference energies
        and the network. A prior that is switched off (``remove_ref_energy``) adds nothing here either.

    Raises:
        InputError: the file is missing or damaged, an option is not supported, or an element has no row.
    """
    hyperparameters, state = _read(path)
    for option, (allowed, absent) in _REQUIRED.items():
        value = hyperparameters.get(option, absent)
        if isinstance(value, Tensor) or value not in allowed:
            raise InputError(f"{path}: {option} = {value!r} is not supported, only {' or '.join(map(repr, allowed))}")
    prior = _prior(path, hyperparameters)
    try:
        return _convert(path, hyperparameters, _current_names(state), elements, prior=prior)
    except InputError:
        raise
    except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise InputError(f"{path}: damaged checkpoint ({' '.join(repr(error).split())[:120]})") from error


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    content = read_torch_file(path)
    hyperparameters = content.get("hyper_parameters") if isinstance(content, dict) else None
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(hyperparameters, Mapping) or not isinstance(state, Mapping):
        raise InputError(f"{path}: not a checkpoint of TorchMD-NET: it has no hyper_parameters and state_dict")
    if not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path}: damaged checkpoint: not all of state_dict are tensors")
    return dict(hyperparameters), dict(state)


def _prior(path: str | os.PathLike[str], hyperparameters: Mapping[str, Any]) -> bool:
    """Whether reference energies are added."""
    named = hyperparameters.get("prior_model") or []
    named = named if isinstance(named, list | tuple) else [named]
    arguments = hyperparameters.get("prior_args") or [{}]
    arguments = list(arguments) if isinstance(arguments, list | tuple) else [arguments]
    if len(named) > 1 or len(arguments) > 1:
        raise InputError(f"{path}: prior_model = {named!r} is not supported, only one Atomref")
    if not named:
        return False
    name, options = (*named[0].items(),)[0] if isinstance(named[0], dict) and len(named[0]) == 1 else (named[0], {})
    if name not in _PRIORS or not all(isinstance(found or {}, Mapping) for found in (options, arguments[0])):
        raise InputError(f"{path}: prior_model = {name!r} is not supported, only Atomref")
    return bool({**(options or {}), **(arguments[0] or {})}.get("enable", True))


def _current_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefix of the trainer, and with ``layers`` in the readout, which old checkpoints have not."""
    names = {name: re.sub(r"^model\.", "", name) for name in state}
    old = re.compile(r"(output_network\.\d+\.update_net)\.(\d+\.)")
    return {old.sub(r"\1.layers.\2", names[name]): value for name, value in state.items()}


def _convert(
    path: str | os.PathLike[str],
    hyperparameters: Mapping[str, Any],
    state: dict[str, Tensor],
    elements: Sequence[str] | None,
    *,
    prior: bool,
) -> Potential:
    scale, shift = float(state.pop("std", torch.ones(()))), float(state.pop("mean", torch.zeros(())))
    if not math.isfinite(scale):
        raise InputError(f"{path}: damaged checkpoint: std = {scale}")
    if shift != 0:
        raise InputError(f"{path}: mean = {shift} is not supported: it is added per structure, not per atom")
    rows = state["representation_model.embedding.weight"].shape[0]
    known = chemical_symbols[1:rows]
    symbols = tuple(known if elements is None else elements)
    if missing := [symbol for symbol in symbols if symbol not in known]:
        raise InputError(f"{path}: no row for element {', '.join(missing)}; those there are: {known[0]} to {known[-1]}")
    numbers = torch.tensor([atomic_numbers[symbol] for symbol in symbols])
    if absent := [theirs for theirs in _SETTINGS.values() if theirs not in hyperparameters]:
        raise InputError(f"{path}: damaged checkpoint: hyper_parameters lack {', '.join(absent)}")
    theirs = ", ".join(f"{theirs} = {hyperparameters[theirs]!r}" for theirs in _SETTINGS.values())
    content = {
        "vector_cutoff": hyperparameters.get("vector_cutoff", False),
        "envelope": "cosine",
        "norm_softening": 0.0,
        **{ours: hyperparameters[theirs] for ours, theirs in _SETTINGS.items()},
    }
    settings = validate(TorchMDNetSettings, content, f"{path} ({theirs})")
    network = TorchMDNet(symbols, settings)
    references = state.pop("prior_model.0.atomref.weight", None)
    weights = _weights(state, settings, numbers)
    if strange := [name for name in state if not _IGNORED.fullmatch(name)]:
        raise InputError(f"{path}: damaged checkpoint: unknown weights {', '.join(strange[:3])}")
    network.set_dtype(torch.float64 if hyperparameters.get("precision") == 64 else torch.float32)
    network.load_state_dict(network.state_dict() | weights)
    network.energy_scale.fill_(scale)
    network.average_neighbors.fill_(1.0)
    network.eval().requires_grad_(False)  # noqa: FBT003
    if not prior:
        return network
    if references is None:
        raise InputError(f"{path}: damaged checkpoint: the prior Atomref has no weights")
    return SumPotential([ReferenceEnergies(dict(zip(symbols, references[numbers, 0].tolist(), strict=True))), network])


def _weights(state: dict[str, Tensor], settings: TorchMDNetSettings, numbers: Tensor) -> dict[str, Tensor]:
    """Our state dict; what is used is taken out of the original's."""
    weights: dict[str, Tensor] = {}

    def take(name: str, *ours: str | None, heads: bool = False, rows: Tensor | None = None) -> None:
        """Share one tensor out to several of ours, in equal blocks of rows (of each head); None drops a block."""
        value = state.pop(name)
        if rows is not None:
            value = value[rows]
        inner = (settings.heads if heads else 1, len(ours), -1, *value.shape[1:])
        for number, target in enumerate(ours):
            if target is not None:
                weights[target] = value.reshape(inner)[:, number].flatten(0, 1).clone()

    representation = "representation_model."
    take(representation + "embedding.weight", "embedding.weight", rows=numbers)
    take(representation + "neighbor_embedding.embedding.weight", "embedding_of_neighbours.weight", rows=numbers)
    take(representation + "distance_expansion.means", "basis.centers")
    take(representation + "distance_expansion.betas", "basis.sharpness")
    for kind in ("weight", "bias"):
        take(f"{representation}neighbor_embedding.distance_proj.{kind}", f"embedding_filter.{kind}")
        take(f"{representation}neighbor_embedding.combine.{kind}", f"combine.{kind}")
        take(f"{representation}out_norm.{kind}", f"normalise.{kind}")
        take(f"output_model.output_network.0.update_net.layers.0.{kind}", f"gate.hidden.{kind}")
        take(f"output_model.output_network.0.update_net.layers.2.{kind}", f"gate.output.{kind}")
        take(f"output_model.output_network.1.update_net.layers.0.{kind}", f"hidden.{kind}")
        take(f"output_model.output_network.1.update_net.layers.2.{kind}", f"output.{kind}", None)
    take("output_model.output_network.0.vec1_proj.weight", "gate.norm_of.weight")
    take("output_model.output_network.0.vec2_proj.weight", "gate.vectors.weight")
    take("output_model.output_network.1.vec1_proj.weight", "norm_of.weight")
    take("output_model.output_network.1.vec2_proj.weight", None)  # of vectors, which an energy has no use for
    for number in range(settings.layers):
        layer, theirs = f"layers.{number}.", f"{representation}attention_layers.{number}."
        first = number == 0  # there vectors are zero, and what multiplies them has no effect
        for kind in ("weight", "bias"):
            carry, filtered = (None, None) if first else (f"{layer}carry.{kind}", f"{layer}carry_filter.{kind}")
            take(f"{theirs}layernorm.{kind}", f"{layer}normalise.{kind}")
            take(f"{theirs}q_proj.{kind}", f"{layer}query.{kind}")
            take(f"{theirs}k_proj.{kind}", f"{layer}key.{kind}")
            take(f"{theirs}dk_proj.{kind}", f"{layer}key_filter.{kind}")
            take(f"{theirs}v_proj.{kind}", f"{layer}value.{kind}", carry, f"{layer}point.{kind}", heads=True)
            names = (f"{layer}value_filter.{kind}", filtered, f"{layer}point_filter.{kind}")
            take(f"{theirs}dv_proj.{kind}", *names, heads=True)
            take(f"{theirs}o_proj.{kind}", *((None, None) if first else ()), f"{layer}output.{kind}")
        take(f"{theirs}vec_proj.weight", None if first else f"{layer}products.weight")
    return weights
