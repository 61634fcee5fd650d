"""Structures and potentials that many tests use."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111
from ase.spacegroup import crystal

from pretrain_mlip.graphs.graph import make_graph
from pretrain_mlip.potentials.base import Potential, ReferenceEnergies, SumPotential
from pretrain_mlip.potentials.eam.form import EAM
from pretrain_mlip.potentials.networks import available_models, build_model
from pretrain_mlip.potentials.networks.base import Network
from pretrain_mlip.potentials.zbl import ZBL

ELEMENTS = ["O", "Si"]
# Larger real data, for the tests that want some
DATA_FOLDER = Path(os.environ.get("PRETRAIN_MLIP_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)  # tests run in several processes, and small tensors gain nothing from more


def quartz() -> Atoms:
    """alpha-SiO2, 9 atoms in a skewed cell."""
    return crystal(
        ["Si", "O"],
        basis=[(0.4697, 0.0, 1 / 3), (0.4135, 0.2669, 0.2142)],
        spacegroup=152,
        cellpar=[4.916, 4.916, 5.405, 90, 90, 120],
    )


def _rattled(atoms: Atoms, seed: int, size: float = 0.1) -> Atoms:
    atoms = atoms.copy()
    atoms.positions += np.random.default_rng(seed).normal(scale=size, size=atoms.positions.shape)
    return atoms


def _structures() -> dict[str, Atoms]:
    triclinic = _rattled(quartz(), 0)
    strain = np.array([[1.05, 0.1, -0.03], [0, 0.96, 0.06], [0, 0, 1.02]])
    triclinic.set_cell(triclinic.cell.array @ strain, scale_atoms=True)
    slab = fcc111("Cu", (2, 2, 3), a=4.0, vacuum=6.0)
    slab.symbols[:] = ["Si", "O", "O"] * 4
    return {
        "quartz": _rattled(quartz(), 1),
        "triclinic": triclinic,
        "one atom, cell smaller than the cutoff": bulk("Si", "fcc", a=3.9),
        "slab": _rattled(slab, 2),
        "molecule without a cell": Atoms("SiO2", positions=[[0, 0, 0], [1.6, 0.1, 0], [-0.8, 1.4, 0.2]]),
        "isolated atom": Atoms("O"),
        "dimer beyond the cutoff": Atoms("SiO", positions=[[0, 0, 0], [12.0, 0, 0]]),
        "wire": Atoms("SiO", positions=[[0, 0, 0], [0.4, 0.3, 1.5]], cell=[0, 0, 3.1], pbc=[False, False, True]),
    }


STRUCTURES = _structures()


@pytest.fixture(params=list(STRUCTURES))
def structure(request: pytest.FixtureRequest) -> Atoms:
    return STRUCTURES[request.param].copy()


def hard_eam(form: str = "alloy") -> EAM:
    """An EAM with parameters that differ from pair to pair, and E0s."""
    eam = EAM(ELEMENTS, 6.0, form)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in eam.parameters():
            value.add_(0.2 * torch.randn(value.shape, generator=generator, dtype=torch.float64))
        eam.e0.copy_(torch.tensor([-430.0, -105.0]))
    return eam.requires_grad_(False)


def lively(network: Network) -> Network:
    """The network in float64 with weights large enough for angles to matter, and forces of 1 eV/Å on rattled quartz.

    Fresh networks give next to nothing, on which no tolerance means anything.
    """
    network.set_dtype(torch.float64)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.mul_(1.5)
    forces = network(make_graph(STRUCTURES["quartz"], network.cutoff))["forces"]
    network.energy_scale.div_(forces.square().mean().sqrt())
    return network


def wide_zbl() -> ZBL:
    """A repulsion that reaches as far as bonds, so that it acts in ordinary structures."""
    return ZBL(ELEMENTS, {"O-O": (0.9, 2.6), "O-Si": (1.2, 2.3), "Si-Si": (1.5, 3.2)})


def potentials() -> dict[str, Potential]:
    """One of every kind, float64."""
    everything: dict[str, Potential] = {"eam alloy": hard_eam(), "eam fs": hard_eam("fs"), "zbl": wide_zbl()}
    for name in available_models():
        everything[name] = lively(build_model(name, ELEMENTS, seed=3))
    network = lively(build_model("cgcnn", ELEMENTS, seed=4, cutoff=4.0, width=16))
    origins = ReferenceEnergies({"O": -430.0, "Si": -105.0})
    everything["sum"] = SumPotential([origins, hard_eam(), network])
    everything["sum with zbl"] = SumPotential([origins, wide_zbl(), network])
    return everything


@pytest.fixture(params=list(potentials()))
def potential(request: pytest.FixtureRequest) -> Potential:
    return potentials()[request.param]
