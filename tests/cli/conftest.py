"""What many commands are given: potentials and structures in files."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import ELEMENTS, hard_eam

from pretrain_mlip.potentials.base import ReferenceEnergies, SumPotential
from pretrain_mlip.potentials.checkpoint import save_potential
from pretrain_mlip.potentials.networks import build_model
from pretrain_mlip.structures.datasets import load_dataset
from pretrain_mlip.structures.io import write_structures


@pytest.fixture
def eam(tmp_path: Path) -> Path:
    hard_eam().save(tmp_path / "eam.json")
    return tmp_path / "eam.json"


@pytest.fixture
def network(tmp_path: Path) -> Path:
    model = build_model("cgcnn", ELEMENTS, width=8, convolutions=1)
    save_potential(tmp_path / "net.pt", SumPotential([ReferenceEnergies({"O": -430.0, "Si": -105.0}), model]))
    return tmp_path / "net.pt"


@pytest.fixture
def silica(tmp_path: Path) -> Path:
    write_structures(tmp_path / "silica.extxyz", load_dataset("silica_mini")[:12])
    return tmp_path / "silica.extxyz"
