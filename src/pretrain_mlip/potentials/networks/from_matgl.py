"""M3GNet checkpoints of MatGL as potentials of ours; MatGL is not needed."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pretrain_mlip.errors import InputError
from pretrain_mlip.potentials.base import Potential, ReferenceEnergies, SumPotential
from pretrain_mlip.potentials.checkpoint import read_torch_file
from pretrain_mlip.potentials.networks import build_model

# Options of MatGL's M3GNet that ours has no counterpart of, with the only values that leave nothing out
_FIXED: dict[str, tuple[Any, ...]] = {
    "is_intensive": (False,),
    "include_state": (False,),
    "use_phi": (False,),
    "rbf_type": ("SphericalBessel",),
    "activation_type": ("swish",),
    "task_type": ("regression",),
    "ntargets": (1,),
    "dropout": (None, 0.0),  # of training only; ours has none
    "calc_repuls": (False,),
}
# Options without an effect on energies of structures, or of readouts and states that _FIXED excludes
_WITHOUT_EFFECT = {
    *("dim_state_embedding", "ntypes_state", "dim_state_feats", "readout_type", "niters_set2set", "nlayers_set2set"),
    *("field", "calc_forces", "calc_stresses", "calc_hessian", "calc_magmom", "calc_charge", "zbl_trainable"),
    *("debug_mode", "compile_model", "compile_mode", "element_types", "element_refs", "data_mean", "data_std"),
}
_NOT_WEIGHTS = re.compile(r"(bond|basis)_expansion\..*|data_mean|data_std|element_refs\.property_offset")
_DEFAULTS = {  # of MatGL, for checkpoints that leave them out
    "is_intensive": True,
    "max_n": 3,
    "max_l": 3,
    "nblocks": 3,
    "dim_node_embedding": 64,
    "dim_edge_embedding": 64,
    "units": 64,
    "cutoff": 5.0,
    "threebody_cutoff": 4.0,
    "use_smooth": False,
}


def potential_from_matgl(path: str | os.PathLike[str]) -> Potential:
    """A potential from a folder in which MatGL saved an M3GNet, or a Potential around one.

    Energies and forces are MatGL's: ``envelope`` is off and sums over neighbours are not scaled. ``model.json`` (the
    configuration) and ``state.pt`` (tensors) are read; ``model.pt`` is not needed.

    Args:
        path: the folder.

    Returns:
        The network, plus reference energies where the checkpoint has them; frozen, float32 as MatGL stores it.

    Raises:
        InputError: a file is missing or damaged, or the model is another than an M3GNet for energies, or has an option
            that ours does not know.
    """
    folder = Path(path)
    config_file, state_file = folder / "model.json", folder / "state.pt"
    for file in (config_file, state_file):
        if not file.is_file():
            raise InputError(f"{file}: no such file; a folder written by MatGL has model.json and state.pt")
    outer, inner = _configuration(config_file)
    options = _DEFAULTS | inner
    if strange := sorted({*outer, *inner} - {*_FIXED, *_WITHOUT_EFFECT, *_DEFAULTS}):
        raise InputError(f"{config_file}: {', '.join(strange)}: options that are not known here")
    for name, allowed in _FIXED.items():
        value = (outer | options).get(name, allowed[0])
        if value not in allowed:
            raise InputError(f"{config_file}: {name}={value!r} is not supported, only {allowed[0]!r}")
    state = read_torch_file(state_file)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{state_file}: not a dictionary of tensors")
    try:
        return _converted(options, state)
    except KeyError as error:
        raise InputError(f"{state_file}: {error.args[0]} is missing") from None
    except InputError as error:
        raise InputError(f"{config_file}: {error}") from None
    except (RuntimeError, ValueError, TypeError) as error:
        raise InputError(f"{state_file}: does not fit model.json ({' '.join(str(error).split())[:160]})") from error


def _configuration(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of MatGL's Potential (empty where the network alone was saved), and of its network."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        kind, outer = content["@class"], content["kwargs"]
        inner = outer
        if kind == "Potential":
            kind, inner = outer["model"]["@class"], outer["model"]["init_args"]
            outer = {name: value for name, value in outer.items() if name != "model"}
        else:
            outer = {}
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise InputError(f"{file}: not a configuration written by MatGL ({error!r})") from error
    if kind != "M3GNet" or not isinstance(inner, dict):
        raise InputError(f"{file}: a model of class {kind}; only M3GNet can be converted")
    if not isinstance(inner.get("element_types"), list):
        raise InputError(f"{file}: element_types is missing")
    return outer, inner


def _converted(options: dict[str, Any], state: dict[str, Tensor]) -> Potential:
    state = {name.removeprefix("model."): value for name, value in state.items()}
    mean, scale = (float(state.get(name, default)) for name, default in (("data_mean", 0.0), ("data_std", 1.0)))
    if not math.isfinite(scale):
        raise ValueError(f"data_std {scale} is not finite")
    if mean != 0.0:
        raise ValueError(f"data_mean {mean} is added once per structure, not per atom")
    network = build_model(
        "m3gnet",
        options["element_types"],
        cutoff=options["cutoff"],
        three_body_cutoff=options["threebody_cutoff"],
        blocks=options["nblocks"],
        width=options["dim_node_embedding"],
        edge_width=options["dim_edge_embedding"],
        hidden_width=options["units"],
        radial=options["max_n"],
        angular=options["max_l"],
        basis="smooth" if options["use_smooth"] else "bessel",
        envelope=False,
    )
    used: set[str] = set()
    network.load_state_dict(m3gnet_state(state, options["nblocks"], options["dim_node_embedding"], used))
    if strange := [name for name in state if name not in used and not _NOT_WEIGHTS.fullmatch(name)]:
        raise ValueError(f"nothing is known of the weights {', '.join(strange[:3])}")
    network.energy_scale.fill_(scale)
    network.average_neighbors.fill_(1.0)
    network.eval().requires_grad_(False)  # noqa: FBT003
    if "element_refs.property_offset" not in state:
        return network
    offsets = state["element_refs.property_offset"].to(torch.float64)
    if offsets.shape != (len(network.elements),):
        raise ValueError(f"{tuple(offsets.shape)} element references for {len(network.elements)} elements")
    references = ReferenceEnergies(dict(zip(network.elements, offsets.tolist(), strict=True)))
    return SumPotential([references, network])


def m3gnet_state(state: dict[str, Tensor], blocks: int, width: int, used: set[str] | None = None) -> dict[str, Tensor]:
    """Weights of our M3GNet from those of MatGL's.

    Args:
        state: MatGL's state dictionary of the network.
        blocks: number of blocks.
        width: features per atom, by which the first layer of edge perceptrons is taken apart.
        used: receives the names of the weights that ours come from.

    Raises:
        KeyError: a weight is missing.
    """
    used = set() if used is None else used

    def taken(name: str) -> Tensor:
        used.add(name)
        return state[name]

    ours = {"embedding.weight": taken("embedding.layer_node_embedding.weight")}
    ours["energy_scale"], ours["average_neighbors"] = torch.ones(()), torch.ones(())

    def copy(name: str, source: str) -> None:
        ours[f"{name}.weight"] = taken(f"{source}.weight")
        if f"{source}.bias" in state:
            ours[f"{name}.bias"] = taken(f"{source}.bias")

    def copy_gated(name: str, source: str, first: int, layers: int) -> None:
        for layer in range(first, layers):  # in MatGL an activation follows each layer
            copy(f"{name}.core.{layer - first}", f"{source}.layers.{2 * layer}")
            copy(f"{name}.gate.{layer - first}", f"{source}.gates.{2 * layer}")

    copy("edge_embedding", "embedding.layer_edge_embedding.layers.0")
    copy_gated("readout", "final_layer.gated", 0, 4)
    for block in range(blocks):
        prefix, three_body = f"blocks.{block}", f"three_body_interactions.{block}"
        copy(f"{prefix}.gate", f"{three_body}.update_network_atom.layers.0")
        copy_gated(f"{prefix}.three_body", f"{three_body}.update_network_bond", 0, 1)
        for part in ("edge", "node"):
            name, source = f"{prefix}.{part}_update", f"graph_layers.{block}.conv.{part}_update_func"
            copy(f"{prefix}.{part}_weight", f"graph_layers.{block}.conv.{part}_weight_func")
            copy_gated(f"{name}.rest", source, 1, 3)
            for number, branch in enumerate(("layers", "gates")):
                first = taken(f"{source}.{branch}.0.weight").tensor_split((width, 2 * width), dim=1)
                for end, matrix in zip(("centre", "neighbour", "edge"), first, strict=True):
                    ours[f"{name}.of_{end}.{number}.weight"] = matrix
                ours[f"{name}.of_centre.{number}.bias"] = taken(f"{source}.{branch}.0.bias")
    return ours
