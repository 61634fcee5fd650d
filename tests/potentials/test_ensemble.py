"""Potentials that act as one."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces

from pretrain_mlip import PretrainedMLIP, build_model
from pretrain_mlip.calculators.batched import predict
from pretrain_mlip.errors import InputError
from pretrain_mlip.potentials.base import Potential, ReferenceEnergies, SumPotential
from pretrain_mlip.potentials.checkpoint import load_potential, save_potential
from pretrain_mlip.potentials.compiled import compiled, uncompiled
from pretrain_mlip.potentials.ensemble import Ensemble
from pretrain_mlip.potentials.tracing import trace
from pretrain_mlip.potentials.zbl import ZBL
from pretrain_mlip.structures.datasets import load_dataset

ELEMENTS = ["O", "Si"]


def member(seed: int, cutoff: float = 4.0) -> Potential:
    network = build_model("cgcnn", ELEMENTS, seed=seed, width=8, convolutions=1, gaussians=8, cutoff=cutoff)
    network.set_dtype(torch.float64)
    return network


def spread(calculator: Any, atoms: Atoms) -> tuple[float, np.ndarray]:
    """energy_std and forces_std."""
    return tuple(calculator.get_property(name, atoms) for name in ("energy_std", "forces_std"))


def silica(number: int = 0) -> Atoms:
    return load_dataset("silica_mini")[number].copy()


@pytest.mark.parametrize("cutoffs", [(4.0, 4.0, 4.0), (3.0, 4.5, 4.0)])
def test_mean_and_standard_deviation_of_the_members(cutoffs: tuple[float, ...]) -> None:
    members = [member(seed, cutoff) for seed, cutoff in enumerate(cutoffs)]
    calculator = PretrainedMLIP(SumPotential([ReferenceEnergies({"O": -3.0, "Si": 2.0}), Ensemble(members)]))
    atoms = silica()
    alone = [found for one in members for found in predict(one, [atoms])]
    atoms.calc = calculator
    energies = np.array([found.energy for found in alone])
    forces = np.array([found.forces for found in alone])
    stresses = np.array([found.stress for found in alone])
    shift = -3.0 * 16 + 2.0 * 8
    # float64; sums in other orders
    assert atoms.get_potential_energy() == pytest.approx(energies.mean() + shift, abs=1e-10)
    np.testing.assert_allclose(atoms.get_forces(), forces.mean(0), atol=1e-12)
    np.testing.assert_allclose(atoms.get_stress(), stresses.mean(0), atol=1e-14)
    assert spread(calculator, atoms)[0] == pytest.approx(energies.std(ddof=1), rel=1e-9)
    np.testing.assert_allclose(spread(calculator, atoms)[1], forces.std(0, ddof=1), rtol=1e-9)
    atoms.rattle(0.1, seed=1)
    np.testing.assert_allclose(
        atoms.get_forces()[:2], calculate_numerical_forces(atoms, 1e-4, iatoms=[0, 1]), atol=1e-6
    )


def test_others_offer_no_spread() -> None:
    atoms = silica()
    calculator = PretrainedMLIP(member(0))
    with pytest.raises(PropertyNotImplementedError):
        calculator.get_property("energy_std", atoms)


def test_files_pickles_and_copies(tmp_path: Path) -> None:
    potential = SumPotential([ZBL(ELEMENTS), Ensemble([member(0), member(1)])])
    save_potential(tmp_path / "one.pt", potential)
    save_potential(tmp_path / "a.pt", member(0))
    save_potential(tmp_path / "b.pt", member(1))
    atoms = silica(3)
    (expected,) = predict(potential, [atoms])
    (loaded,) = predict(load_potential(tmp_path / "one.pt"), [atoms])
    assert loaded.energy == expected.energy
    calculator = PretrainedMLIP.load([tmp_path / "a.pt", tmp_path / "b.pt"], device="cpu")
    (mean,) = predict(Ensemble([member(0), member(1)]), [atoms])
    for one in (calculator, copy.deepcopy(calculator), pickle.loads(pickle.dumps(calculator))):  # noqa: S301  # our own
        atoms.calc = one
        assert atoms.get_potential_energy() == pytest.approx(mean.energy, abs=1e-10)
        assert spread(one, atoms)[0] > 0


def test_small_structures() -> None:
    calculator = PretrainedMLIP(Ensemble([member(0), member(1)]))
    for atoms in (Atoms("Si"), bulk("Si", "sc", a=2.2), Atoms("SiO", positions=[[0, 0, 0], [0, 0, 1.6]])):
        atoms.calc = calculator
        assert spread(calculator, atoms)[1].shape == (len(atoms), 3)
        assert np.isfinite(spread(calculator, atoms)[0])


def test_an_ensemble_may_be_a_member() -> None:
    atoms = silica()
    inner = Ensemble([member(0), member(1)])
    (first,), (second,) = predict(inner, [atoms]), predict(member(2), [atoms])
    (found,) = predict(Ensemble([inner, member(2)]), [atoms])
    assert found.energy == pytest.approx((first.energy + second.energy) / 2, abs=1e-10)


def test_what_makes_no_ensemble() -> None:
    with pytest.raises(InputError, match="at least two"):
        Ensemble([member(0)])
    with pytest.raises(InputError, match="same elements in the same order are needed, not O, Si; Si, O"):
        Ensemble([member(0), build_model("cgcnn", ["Si", "O"])])


def test_members_of_other_cutoffs_make_no_single_graph() -> None:
    with pytest.raises(InputError, match="differ in their cutoff"):
        trace(Ensemble([member(0, 4.0), member(1, 4.5)]))


def test_compiled_members_are_wrapped_and_unwrapped() -> None:
    potential = SumPotential([ZBL(ELEMENTS), Ensemble([member(0), member(1)])])
    fast = compiled(potential)
    assert fast.spread
    assert fast.config() == potential.config()
    assert uncompiled(fast).config() == potential.config()
    assert uncompiled(potential) is potential
