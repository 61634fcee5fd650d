"""Neural networks by name. A new architecture is one file and one line in ``_NETWORKS`` (docs: adding a network)."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import torch

from pretrain_mlip.errors import InputError
from pretrain_mlip.potentials.networks.base import Network, NetworkSettings
from pretrain_mlip.settings import validate

_NETWORKS = {
    "cgcnn": ("pretrain_mlip.potentials.networks.cgcnn", "CGCNN"),
    "m3gnet": ("pretrain_mlip.potentials.networks.m3gnet", "M3GNet"),
    "torchmd_net": ("pretrain_mlip.potentials.networks.torchmd_net", "TorchMDNet"),
}


def available_models() -> list[str]:
    """Names that ``build_model`` accepts."""
    return sorted(_NETWORKS)


def model_class(name: str) -> type[Network]:
    """The class of a network.

    Raises:
        InputError: there is no network of this name.
    """
    if name not in _NETWORKS:
        raise InputError(f"no model '{name}'; available: {', '.join(available_models())}")
    module, attribute = _NETWORKS[name]
    return getattr(importlib.import_module(module), attribute)


def model_settings(name: str, hyperparameters: dict[str, Any]) -> NetworkSettings:
    """Validated hyperparameters of a network.

    Raises:
        InputError: the network or a hyperparameter is unknown, or a value is wrong.
    """
    return validate(model_class(name).settings_class, hyperparameters, f"model {name}")


def build_model(name: str, elements: Sequence[str], *, seed: int = 0, **hyperparameters: Any) -> Network:
    """An untrained network.

    Args:
        name: one of ``available_models()``.
        elements: chemical symbols.
        seed: of the initial weights; the global random state is left as it was.
        hyperparameters: see the settings class of the network.

    Raises:
        InputError: the network, an element or a hyperparameter is unknown, or a value is wrong.
    """
    settings = model_settings(name, hyperparameters)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model_class(name)(elements, settings)
