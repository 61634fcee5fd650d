"""The neighbour list against a search over all images, in every kind of cell."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain_mlip.errors import InputError
from pretrain_mlip.graphs.graph import edge_vectors, make_graph
from pretrain_mlip.structures.neighbors import find_pairs


def brute_force(atoms: Atoms, cutoff: float) -> set[tuple[int, ...]]:
    """(centre, neighbour, shift) of all pairs, by trying more images than can matter."""
    cell = atoms.cell.array
    ranges = []
    for axis in range(3):
        if not atoms.pbc[axis]:
            ranges.append([0])
            continue
        # distance between lattice planes, also where other directions are absent
        others = [cell[k] for k in range(3) if k != axis and atoms.pbc[k]]
        height = cell[axis].copy()
        if others:
            basis = np.linalg.qr(np.array(others).T)[0]
            height = height - basis @ (basis.T @ height)
        spread = np.ptp(atoms.positions, axis=0).max() + cutoff
        reach = int(np.ceil(spread * 2 / np.linalg.norm(height))) + 1
        ranges.append(range(-reach, reach + 1))
    found = set()
    for shift in itertools.product(*ranges):
        vectors = atoms.positions[None] + np.array(shift) @ cell - atoms.positions[:, None]
        close = np.linalg.norm(vectors, axis=-1) < cutoff
        for i, j in np.argwhere(close):
            if i != j or any(shift):
                found.add((int(i), int(j), *map(int, shift)))
    return found


@given(
    seed=st.integers(0, 10_000),
    atoms=st.integers(1, 5),
    pbc=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    cutoff=st.floats(1.0, 4.0),
    absent=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_equals_a_search_over_all_images(
    seed: int, atoms: int, pbc: tuple[bool, ...], cutoff: float, absent: bool
) -> None:
    rng = np.random.default_rng(seed)
    cell = np.diag(rng.uniform(1.5, 5.0, 3)) + rng.uniform(-0.8, 0.8, (3, 3))
    if absent:
        cell[~np.array(pbc)] = 0.0
    positions = rng.uniform(-6, 6, (atoms, 3))  # often outside the cell
    structure = Atoms(f"Si{atoms}", positions=positions, cell=cell, pbc=pbc)
    centre, neighbour, shifts = find_pairs("ijS", structure, cutoff)
    ours = [(int(i), int(j), *map(int, s)) for i, j, s in zip(centre, neighbour, shifts, strict=True)]
    assert len(ours) == len(set(ours))
    assert set(ours) == brute_force(structure, cutoff)
    assert (np.diff(centre) >= 0).all()


def test_reversed_edges_have_exactly_negative_vectors(structure: Atoms) -> None:
    graph = make_graph(structure, 6.0)
    vectors = edge_vectors(graph).numpy()
    forward = {
        (int(i), int(j), *map(int, s)): v
        for (j, i), s, v in zip(graph.edge_index.T.tolist(), graph.cell_shifts.tolist(), vectors, strict=True)
    }
    for (i, j, a, b, c), vector in forward.items():
        assert (forward[j, i, -a, -b, -c] == -vector).all()


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms("Si", positions=[[np.nan, 0, 0]]), "atom 0"),
        (Atoms("Si", cell=[0, 0, 0], pbc=True), "no extent"),
        (Atoms("Si", cell=[3, np.inf, 3], pbc=True), "cell is not finite"),
    ],
)
def test_refuses(atoms: Atoms, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_pairs("ijS", atoms, 5.0)


def test_no_atoms() -> None:
    centre, shifts = find_pairs("iS", Atoms(), 5.0)
    assert centre.shape == (0,)
    assert shifts.shape == (0, 3)


@pytest.mark.parametrize("pbc", [(False, False, False), (True, False, False), (True, True, False)])
@pytest.mark.parametrize("away", [1e4, 1e12])
def test_an_atom_far_away_needs_no_memory_and_changes_nothing(pbc: tuple[bool, ...], away: float) -> None:
    rng = np.random.default_rng(3)
    near = Atoms("Si8", positions=rng.uniform(0, 4, (8, 3)), cell=[4.0, 4.5, 5.0], pbc=pbc)
    far = near + Atoms("O", positions=[[1.0, away if not pbc[1] else 1.0, -away]])

    def pairs(atoms: Atoms) -> dict[tuple[int, ...], float]:
        found = zip(*find_pairs("ijSd", atoms, 3.0), strict=True)
        return {(int(i), int(j), *map(int, shift)): d for i, j, shift, d in found if 8 not in (i, j)}

    assert pairs(far) == pytest.approx(pairs(near), rel=1e-14)
    centre, neighbour = find_pairs("ij", far, 3.0)
    assert (neighbour[centre == 8] == 8).all()  # it may see its own images and nothing else
