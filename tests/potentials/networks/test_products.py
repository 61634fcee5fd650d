"""Reduced precision of products: near the full one, and gone afterwards. On a GPU it has not been tried."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.conftest import ELEMENTS, STRUCTURES, lively

from pretrain_mlip import PretrainedMLIP
from pretrain_mlip.errors import InputError
from pretrain_mlip.potentials.networks import available_models, build_model


@pytest.mark.parametrize("name", available_models())
@pytest.mark.parametrize("memory_limit", [None, 1e-9])
def test_bfloat16_is_coarse_and_close(name: str, memory_limit: float | None) -> None:
    network = lively(build_model(name, ELEMENTS, seed=5))
    atoms = STRUCTURES["quartz"]
    full = PretrainedMLIP(network, dtype="float32").get_forces(atoms)
    coarse = PretrainedMLIP(network, products="bfloat16", memory_limit=memory_limit).get_forces(atoms)
    difference = float(np.abs(coarse - full).max())
    assert 1e-5 < difference < 0.3  # eV/Å, of forces of 1: seven bits are left of each factor
    assert coarse.dtype == np.float64
    assert not torch.is_autocast_enabled("cpu")
    # The network may still have the memory limit, and add in another order
    assert PretrainedMLIP(network, products="full").get_forces(atoms) == pytest.approx(full, abs=2e-5)


def test_unknown_precision() -> None:
    with pytest.raises(InputError, match="products 'half'"):
        PretrainedMLIP(build_model("cgcnn", ELEMENTS), products="half")  # type: ignore[arg-type]
