"""Properties that every potential has, on every kind of structure."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from tests.conftest import ELEMENTS, STRUCTURES, lively, potentials, quartz

from pretrain_mlip.calculators.ase import PretrainedMLIP
from pretrain_mlip.calculators.batched import predict
from pretrain_mlip.graphs.graph import make_batch, make_graph
from pretrain_mlip.potentials.base import Potential
from pretrain_mlip.potentials.networks import available_models, build_model


def energy(potential: Potential, atoms: Atoms) -> float:
    (labels,) = predict(potential, [atoms])
    assert labels.energy is not None
    return labels.energy


def forces(potential: Potential, atoms: Atoms) -> np.ndarray:
    (labels,) = predict(potential, [atoms])
    assert labels.forces is not None
    return labels.forces


def test_forces_are_the_gradient(potential: Potential, structure: Atoms) -> None:
    structure.calc = PretrainedMLIP(potential)
    # central differences of 2e-5 Å: error of h² / 6 times third derivatives of 5000, and of rounding (1e-12 eV / h)
    numerical = calculate_numerical_forces(structure, eps=2e-5)
    assert structure.get_forces() == pytest.approx(numerical, abs=1e-6)


@pytest.mark.parametrize("name", ["quartz", "triclinic", "one atom, cell smaller than the cutoff"])
def test_stress_is_the_strain_derivative(potential: Potential, name: str) -> None:
    atoms = STRUCTURES[name].copy()
    atoms.calc = PretrainedMLIP(potential)
    assert atoms.get_stress() == pytest.approx(calculate_numerical_stress(atoms, eps=1e-5), rel=1e-6, abs=1e-8)


def test_rotation_reflection_translation(potential: Potential, structure: Atoms) -> None:
    rotation = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))[0]  # of either determinant
    for matrix in (rotation, -rotation):
        moved = structure.copy()
        moved.set_cell(moved.cell.array @ matrix)
        moved.positions = moved.positions @ matrix + [0.3, -7.0, 2.0]
        assert energy(potential, moved) == pytest.approx(energy(potential, structure), abs=1e-9)
        assert forces(potential, moved) == pytest.approx(forces(potential, structure) @ matrix, abs=1e-9)


def test_permutation(potential: Potential, structure: Atoms) -> None:
    order = np.random.default_rng(6).permutation(len(structure))
    assert energy(potential, structure[order]) == pytest.approx(energy(potential, structure), abs=1e-9)
    assert forces(potential, structure[order]) == pytest.approx(forces(potential, structure)[order], abs=1e-9)


def test_wrapped_equals_unwrapped(potential: Potential, structure: Atoms) -> None:
    unwrapped = structure.copy()
    shifts = np.random.default_rng(7).integers(-3, 4, (len(structure), 3)) * structure.pbc
    unwrapped.positions += shifts @ structure.cell.array
    assert energy(potential, unwrapped) == pytest.approx(energy(potential, structure), abs=1e-9)


@pytest.mark.parametrize("repeat", [(2, 1, 1), (1, 2, 2), (2, 2, 2), (4, 4, 4)])
def test_energy_per_atom_of_a_supercell(potential: Potential, repeat: tuple[int, int, int]) -> None:
    one = bulk("Si", "fcc", a=3.9)  # 2.8 Å between atoms, cutoffs of 4 to 6 Å
    many = one * repeat
    assert energy(potential, many) / len(many) == pytest.approx(energy(potential, one), abs=1e-9)


def test_batch_equals_single(potential: Potential) -> None:
    frames = list(STRUCTURES.values())
    batch = make_batch([make_graph(atoms, potential.cutoff) for atoms in frames])
    with torch.no_grad():
        together = potential(batch)
    start = 0
    for number, atoms in enumerate(frames):
        (alone,) = predict(potential, [atoms])
        end = start + len(atoms)
        assert float(together["energy"][number]) == pytest.approx(alone.energy, abs=1e-9)
        assert together["forces"][start:end].numpy() == pytest.approx(alone.forces, abs=1e-9)
        stress = together["stress"][number].numpy()
        assert np.isfinite(stress).all() == atoms.pbc.all()
        if alone.stress is not None:
            assert stress == pytest.approx(alone.stress, abs=1e-11)
        start = end


def test_far_fragments_add_up(potential: Potential) -> None:
    a, b = STRUCTURES["molecule without a cell"], Atoms("OSi", positions=[[0, 0, 0], [1.7, 0, 0]])
    far = b.copy()
    far.positions += [30.0, 0, 0]
    assert energy(potential, a + far) == pytest.approx(energy(potential, a) + energy(potential, b), abs=1e-9)


def _cutoffs(potential: Potential) -> set[float]:
    parts = [potential, *getattr(potential, "potentials", list)()]
    of_settings = (getattr(getattr(part, "settings", None), "three_body_cutoff", 0.0) for part in parts)
    return {cutoff for cutoff in (*(part.cutoff for part in parts), *of_settings) if cutoff > 0}


def _near_the_cutoff(name: str) -> Potential:
    """With forces near the cutoff on which tolerances mean something."""
    if name == "m3gnet, angles beyond the cutoff":
        return lively(build_model("m3gnet", ELEMENTS, seed=3, cutoff=3.5))
    if name != "torchmd_net":
        return potentials()[name]
    narrow = build_model(name, ELEMENTS, seed=2, cutoff=4.0, width=16, layers=3, heads=4, radial=10)
    narrow.set_dtype(torch.float64)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in narrow.parameters():  # without biases it hardly sees atoms that are far from all Gaussians
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator, dtype=torch.float64))
    narrow.set_scales(
        100.0, 16.0
    )  # with vector_cutoff=False the energy jumps by 0.8 eV, with 'cosine' the slope by 0.06
    return narrow


@pytest.mark.parametrize("name", [*potentials(), "m3gnet, angles beyond the cutoff"])
def test_smooth_through_the_cutoffs(name: str) -> None:
    potential = _near_the_cutoff(name)
    for cutoff in _cutoffs(potential):
        step = 1e-4
        distances = cutoff + step * np.arange(-200, 201)
        frames = [Atoms("SiO2", positions=[[0, 0, 0], [d, 0, 0], [0.2, 1.6, 0]]) for d in distances]
        found = predict(potential, frames)
        energies = np.array([labels.energy for labels in found])
        pulls = np.array([labels.forces[1, 0] for labels in found if labels.forces is not None])
        # A jump shows in second differences as itself; of what is smooth they are step² times a derivative of order one
        assert np.abs(np.diff(energies, 2)).max() < 1e-7
        assert np.abs(np.diff(pulls, 2)).max() < 1e-6
        assert pulls[1:-1] == pytest.approx(-np.gradient(energies, step)[1:-1], abs=2e-6)
        # The slope of the force on both sides: it jumps where the second derivative of the energy does
        slopes = np.gradient(pulls, step)[1:-1]
        assert np.abs(np.diff(slopes)).max() < 1e-2


def test_pairs_between_the_cutoffs_have_no_angles(potential: Potential) -> None:
    for distance in sorted(_cutoffs(potential)):
        atoms = Atoms("OSiO", positions=[[-distance - 0.1, 0, 0], [0, 0, 0], [distance + 0.1, 0, 0]])
        atoms.calc = PretrainedMLIP(potential)
        assert np.isfinite(atoms.get_forces()).all()
        assert atoms.get_forces() == pytest.approx(calculate_numerical_forces(atoms, eps=1e-4), abs=1e-6)


def test_every_neighbour_counts(potential: Potential) -> None:
    dense = bulk("Si", "fcc", a=0.4 * potential.cutoff)  # about 260 neighbours
    assert make_graph(dense, potential.cutoff)["edge_index"].shape[1] > 200
    # Sums of hundreds of large terms: ten digits of them
    assert energy(potential, dense * (1, 2, 2)) / 4 == pytest.approx(energy(potential, dense), rel=1e-10)
    atoms = dense * (2, 1, 1)
    atoms.positions[0] += [0.05, 0.02, -0.03]
    atoms.calc = PretrainedMLIP(potential)
    assert atoms.get_forces() == pytest.approx(calculate_numerical_forces(atoms, eps=1e-4), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", available_models())
def test_a_cutoff_of_8_angstrom(name: str) -> None:
    potential = lively(build_model(name, ELEMENTS, seed=3, cutoff=8.0))
    atoms = STRUCTURES["triclinic"].copy()
    assert energy(potential, atoms * (2, 1, 1)) / 2 == pytest.approx(energy(potential, atoms), abs=1e-9)
    atoms.calc = PretrainedMLIP(potential)
    assert atoms.get_forces()[:2] == pytest.approx(
        calculate_numerical_forces(atoms, eps=2e-5, iatoms=[0, 1])[:2], abs=1e-6
    )


def test_deterministic(potential: Potential) -> None:
    assert energy(potential, quartz()) == energy(potential, quartz())
    assert (forces(potential, STRUCTURES["triclinic"]) == forces(potential, STRUCTURES["triclinic"])).all()


def test_forces_sum_to_zero(potential: Potential, structure: Atoms) -> None:
    assert forces(potential, structure).sum(0) == pytest.approx(np.zeros(3), abs=1e-10)


def test_elements_are_those_of_the_fixture(potential: Potential) -> None:
    assert list(potential.elements) == ELEMENTS
