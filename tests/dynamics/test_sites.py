"""The surroundings of atoms at fault, images included."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from tests.conftest import STRUCTURES

from pretrain_mlip.dynamics.sites import MOST, REACH, failure_site


@pytest.mark.parametrize("name", ["triclinic", "slab", "quartz"])
def test_distances_are_those_of_the_structure(name: str) -> None:
    atoms = STRUCTURES[name]
    pair = [1, int(np.argsort(atoms.get_distances(1, range(len(atoms)), mic=True))[1])]
    site = failure_site(atoms, pair)
    positions = np.array(site["positions"])
    distances = np.linalg.norm(positions, axis=1)
    assert (np.diff(distances) >= -2e-3).all()  # the nearest first; rounded to 0.001 Å
    assert distances.max() <= REACH + 1e-3
    assert site["at_fault"][0] == 0
    assert distances[site["at_fault"][1]] == pytest.approx(atoms.get_distance(*pair, mic=True), abs=2e-3)
    assert [site["symbols"][place] for place in site["at_fault"]] == [atoms[number].symbol for number in pair]


def test_an_atom_and_its_own_image() -> None:
    chain = Atoms("Si", cell=[2, 9, 9], pbc=True)
    site = failure_site(chain, [0, 0])
    assert site["at_fault"] == [0, 1]
    assert sorted(x for x, _, _ in site["positions"]) == [-4, -2, 0, 2, 4]


def test_atoms_alone_many_atoms_and_no_place() -> None:
    assert failure_site(Atoms("H2", [[0, 0, 0], [0, 0, 90]]), [1]) == {
        "symbols": ["H"],
        "positions": [[0, 0, 0]],
        "at_fault": [0],
    }
    dense = bulk("Cu", a=1.5, cubic=True) * (6, 6, 6)
    assert len(failure_site(dense, [0])["symbols"]) == MOST
    assert failure_site(dense, []) is None
    dense.positions[3] = np.nan
    assert failure_site(dense, [3]) is None
