import logging
from itertools import combinations_with_replacement

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.constraints import FixAtoms

from pretrain_mlip.errors import InputError
from pretrain_mlip.structures.distances import closest_distance, pairs_within
from pretrain_mlip.structures.io import Labels, labels_of, read_structures, set_labels, write_structures
from pretrain_mlip.structures.moves import PerturbationSettings, move_few, squeezed
from pretrain_mlip.structures.perturbation import perturb
from pretrain_mlip.structures.splits import split_structures


def wall(frames):
    """A teacher with one Morse pair term for all elements: 0.5 eV deep at 2.2 Å, and a wall."""
    labels = []
    for atoms in frames:
        i, j, vectors, _ = pairs_within(atoms, 6.0)
        r = np.linalg.norm(vectors, axis=1)
        x = np.exp(-1.8 * (r - 2.2))
        pull = (1.8 * (x - x * x) / r)[:, None] * vectors
        forces = np.zeros((len(atoms), 3))
        np.add.at(forces, i, pull)
        np.add.at(forces, j, -pull)
        labels.append(Labels(float((0.5 * (x * x - 2 * x)).sum()), forces, None))
    return labels


def crystal(**info):
    atoms = bulk("NaCl", "rocksalt", a=4.6, cubic=True)
    atoms.rattle(0.05)
    atoms.info.update(info)
    return atoms


def same(first, second):
    return len(first) == len(second) and all(
        np.array_equal(a.positions, b.positions) and np.array_equal(a.cell.array, b.cell.array) and a.info == b.info
        for a, b in zip(first, second, strict=True)
    )


def test_the_teacher_of_these_tests_is_consistent():
    (labels,) = wall([crystal()])
    step = 1e-5
    energies = []
    for sign in (1, -1):
        atoms = crystal()
        atoms.positions[3, 1] += sign * step
        energies.append(wall([atoms])[0].energy)
    # Central difference: error step² * third derivative, far below 1e-5 eV/Å.
    assert labels.forces[3, 1] == pytest.approx(-(energies[0] - energies[1]) / (2 * step), abs=1e-5)


@pytest.mark.parametrize("teacher", [None, wall])
def test_a_seed_gives_the_same_copies_whatever_follows(teacher):
    settings = PerturbationSettings(seed=3)
    first = perturb([crystal()], settings, teacher=teacher)
    more = perturb([crystal(), molecule("C2H6"), bulk("Si")], settings, teacher=teacher)
    assert same(first.frames, perturb([crystal()], settings, teacher=teacher).frames)
    assert same(first.frames, more.frames[: len(first.frames)])
    assert not same(first.frames, perturb([crystal()], PerturbationSettings(seed=4), teacher=teacher).frames)


def test_counts_and_information():
    parent = crystal(split="val", structure_id="salt", config_weight=0.5, other=1)
    parent.set_constraint(FixAtoms(range(8)))
    before = parent.copy()
    frames, counts = perturb([parent], PerturbationSettings(rounds=2, copies=20), teacher=wall)
    assert counts["kept"] == len(frames)
    assert counts["kept"] + counts["dropped"] == 40
    assert counts["drawn"] == counts["kept"] + sum(v for k, v in counts.items() if k.startswith("rejected"))
    assert {a.info["config_type"] for a in frames} == {"perturbed_strain", "perturbed_pair"}
    for atoms in frames:
        assert atoms.info["parent"] == "salt"
        assert atoms.info["split"] == "val"
        assert atoms.info["config_weight"] == 0.5
        assert not atoms.constraints
    assert len({a.info["structure_id"] for a in frames}) == len(frames)
    np.testing.assert_array_equal(parent.positions, before.positions)
    assert parent.info == before.info


def test_caps_hold_and_labels_are_the_teachers():
    settings = PerturbationSettings(rounds=3, copies=20, max_force=20.0, max_energy_per_atom=2.0, seed=1)
    parent = crystal()
    frames, counts = perturb([parent], settings, teacher=wall)
    (reference,) = wall([parent])
    for atoms, expected in zip(frames, wall(frames), strict=True):
        labels = labels_of(atoms)
        assert labels.energy == expected.energy
        np.testing.assert_array_equal(labels.forces, expected.forces)
        assert np.linalg.norm(labels.forces, axis=1).max() <= 20.0
        assert (labels.energy - reference.energy) / len(atoms) <= 2.0
        assert closest_distance(atoms, 0.5) is None
    # The scans are there so that most draws are within the caps.
    assert counts["kept"] > 0.7 * counts["drawn"]


def test_without_a_teacher_the_floor_counts_and_there_are_no_labels():
    frames, counts = perturb([crystal()], PerturbationSettings(copies=30, floor_distance=1.0))
    assert all(atoms.calc is None for atoms in frames)
    assert all(closest_distance(atoms, 1.0) is None for atoms in frames)
    assert counts["kept"] + counts["rejected_distance"] == counts["drawn"]


def test_coverage_reaches_the_wall_and_beyond_the_bond_for_every_pair():
    settings = PerturbationSettings(copies=60, pair_share=1.0)
    frames, counts = perturb([crystal()], settings, teacher=wall)
    moves = np.array([counts[f"moves_{pair}"] for pair in ("Cl-Cl", "Cl-Na", "Na-Na")])
    assert moves.sum() > 300
    assert moves.min() > 0.25 * moves.sum()  # kinds are drawn evenly: a third each but for chance
    for kind in combinations_with_replacement((11, 17), 2):
        shortest = []
        for atoms in frames:
            i, j, vectors, _ = pairs_within(atoms, 6.0)
            kinds = np.sort(np.stack([atoms.numbers[i], atoms.numbers[j]], axis=1), axis=1)
            shortest.append(np.linalg.norm(vectors[(kinds == kind).all(axis=1)], axis=1).min())
        assert min(shortest) < 1.5  # Å: far inside the wall, the parent's shortest Cl-Cl or Na-Na is 3.1 Å


def test_volumes_grow_with_the_round_and_reach_both_ends():
    frames, _ = perturb([crystal()], PerturbationSettings(copies=100, pair_share=0.0))
    volumes = np.array([atoms.get_volume() for atoms in frames]).reshape(3, 100) / crystal().get_volume()
    recorded = np.array([atoms.info["volume_factor"] for atoms in frames]).reshape(3, 100)
    np.testing.assert_allclose(volumes, recorded, rtol=0.05)  # shear of 5 % changes the volume in second order
    assert (np.diff(volumes.min(axis=1)) < 0).all()
    assert (np.diff(volumes.max(axis=1)) > 0).all()
    assert volumes.min() < 0.35
    assert volumes.max() > 1.4


def test_molecules_are_not_strained():
    frames, _ = perturb([molecule("C2H6")], PerturbationSettings(copies=10), teacher=wall)
    assert {a.info["config_type"] for a in frames} <= {"perturbed_rattle", "perturbed_pair"}
    assert all(not a.cell.any() and a.info["volume_factor"] == 1.0 for a in frames)


def test_slabs_are_strained_along_periodic_directions_only():
    slab = fcc111("Cu", (2, 2, 3), vacuum=6.0)
    slab.pbc = [True, True, False]
    frames, _ = perturb([slab], PerturbationSettings(copies=10, pair_share=0.0, displacement=0.0))
    for atoms in frames:
        np.testing.assert_allclose(atoms.cell[2], slab.cell[2], atol=1e-12)
        np.testing.assert_allclose(atoms.positions[:, 2], slab.positions[:, 2], atol=1e-12)
        assert not np.allclose(atoms.cell[:2], slab.cell[:2])


def test_one_atom_cells_are_strained_only():
    frames, _ = perturb([bulk("Cu")], PerturbationSettings(copies=20, pair_share=1.0), teacher=wall)
    assert {a.info["config_type"] for a in frames} == {"perturbed_strain"}
    assert closest_distance(frames[0], 3.0)


def test_squeezed_scales_a_triclinic_cell_and_keeps_fractions():
    atoms = bulk("Si")
    half = squeezed(atoms, 0.5)
    assert half.get_volume() == pytest.approx(0.5 * atoms.get_volume(), rel=1e-12)
    np.testing.assert_allclose(half.get_scaled_positions(), atoms.get_scaled_positions(), atol=1e-12)


def test_move_few_respects_the_limits():
    limits = {(11, 11): 1.2, (11, 17): 1.0, (17, 17): 1.5}
    for seed in range(20):
        atoms = crystal()
        made = move_few(atoms, np.random.default_rng(seed), PerturbationSettings(moves=3), limits)
        assert made
        i, j, vectors, _ = pairs_within(atoms, 2.0)
        for a, b, r in zip(i, j, np.linalg.norm(vectors, axis=1), strict=True):
            assert r >= limits[tuple(sorted((atoms.numbers[a], atoms.numbers[b])))] - 1e-6


def test_rejection_of_more_than_half_warns(caplog):
    with caplog.at_level(logging.WARNING):
        _, counts = perturb(
            [crystal()], PerturbationSettings(displacement=1.5, max_force=5.0, max_tries=2), teacher=wall
        )
    assert counts["dropped"] > 0
    assert "draws were rejected" in caplog.text


def test_a_teacher_that_is_not_finite_is_a_reason_to_reject():
    def broken(frames):
        return [Labels(float("nan"), np.zeros((len(atoms), 3)), None) for atoms in frames]

    frames, counts = perturb([crystal()], PerturbationSettings(max_tries=2), teacher=broken)
    assert not frames
    assert counts["rejected_not_finite"] == counts["drawn"]


def test_what_cannot_be_perturbed_is_refused():
    with pytest.raises(InputError, match="nothing to perturb"):
        perturb([Atoms("H", info={"config_type": "IsolatedAtom"})])
    with pytest.raises(InputError, match="energy and forces for every structure"):
        perturb([crystal()], teacher=lambda frames: [Labels(None, None, None) for _ in frames])


def test_copies_go_through_a_file_and_stay_with_their_parents(tmp_path):
    parents = [crystal(structure_id=f"salt-{k}") for k in range(5)]
    for k, atoms in enumerate(parents):
        atoms.rattle(0.1, seed=k)
        set_labels(atoms, *wall([atoms])[0])
    write_structures(tmp_path / "all.extxyz", parents + perturb(parents, teacher=wall).frames)
    for side in split_structures(read_structures(tmp_path / "all.extxyz")):
        own = {a.info["structure_id"] for a in side if "parent" not in a.info}
        assert own == {a.info["parent"] for a in side if "parent" in a.info}
