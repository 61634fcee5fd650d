import itertools

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain_mlip.structures.distances import closest_distance, pair_distance_histograms, pairs_within


def brute_force(atoms, cutoff):
    """All distances below the cutoff, by trying every image; each pair once."""
    ranges = [range(-4, 5) if periodic else range(1) for periodic in atoms.pbc]
    shifts = [np.array(s) @ atoms.cell.array for s in itertools.product(*ranges)]
    found = []
    for i, j in itertools.product(range(len(atoms)), repeat=2):
        for shift in shifts:
            distance = np.linalg.norm(atoms.positions[j] + shift - atoms.positions[i])
            if 1e-9 < distance < cutoff:
                found.append(distance)
    return np.sort(found)[::2]  # each pair was met from both ends


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.tuples(st.booleans(), st.booleans(), st.booleans()), st.integers(0, 10**6))
def test_pairs_equal_brute_force(n, pbc, seed):
    rng = np.random.default_rng(seed)
    cell = np.diag(rng.uniform(2.5, 4, 3)) + rng.uniform(-0.5, 0.5, (3, 3))
    atoms = Atoms(["H"] * n, positions=rng.uniform(-8, 8, (n, 3)), cell=cell, pbc=pbc)
    atoms.wrap()  # in periodic directions, so that four images are enough for the oracle
    _, _, vectors, _ = pairs_within(atoms, 3.0)
    np.testing.assert_allclose(np.sort(np.linalg.norm(vectors, axis=1)), brute_force(atoms, 3.0), rtol=1e-12)


@pytest.mark.parametrize("atoms", [molecule("C6H6"), fcc111("Cu", (2, 2, 2)), bulk("Cu")])
def test_no_cell_slab_and_one_atom_cell(atoms):
    _, _, vectors, _ = pairs_within(atoms, 3.0)
    np.testing.assert_allclose(np.sort(np.linalg.norm(vectors, axis=1)), brute_force(atoms, 3.0), rtol=1e-12)


def test_closest_distance():
    assert closest_distance(molecule("H2"), 2.0) == pytest.approx(0.737, abs=0.01)
    assert closest_distance(molecule("H2"), 0.5) is None


def test_histogram_of_fcc_shells():
    (counts,) = pair_distance_histograms([bulk("Cu", a=3.6)], r_max=4.0, bins=40).values()
    # 12 neighbours at 2.546 Å and 6 at 3.6 Å, each bond shared by two atoms.
    assert counts[25] == 6
    assert counts[35:37].sum() == 3
    assert counts.sum() == 9


def test_histogram_names_are_alphabetical():
    assert set(pair_distance_histograms([Atoms("SiO", positions=[[0, 0, 0], [1.6, 0, 0]])])) == {"O-Si"}
