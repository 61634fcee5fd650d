from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.geometry.rdf import get_rdf
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain_mlip.dynamics.rdf import radial_distribution, rdf_mae
from pretrain_mlip.errors import InputError


def random_silica(seed: int, length: float = 9.0) -> Atoms:
    rng = np.random.default_rng(seed)
    cell = np.diag([length, 1.1 * length, 0.9 * length]) + rng.uniform(-0.5, 0.5, (3, 3))
    return Atoms("Si4O8", scaled_positions=rng.uniform(0, 1, (12, 3)), cell=cell, pbc=True)


def integral(rdf, g: list[float], density: float) -> np.ndarray:
    step = rdf.r[1] - rdf.r[0]
    edges = np.append(np.array(rdf.r) - step / 2, rdf.r[-1] + step / 2)
    return np.cumsum(np.array(g) * density * 4 / 3 * np.pi * np.diff(edges**3))


def test_agrees_with_ase_in_a_large_cell():
    atoms = random_silica(0, length=13.0)  # ASE wants cells wider than 2 r_max
    ours = radial_distribution([atoms], r_max=5.0, bins=40)
    theirs, r = get_rdf(atoms, 5.0, 40)
    np.testing.assert_allclose(r, ours.r)
    np.testing.assert_allclose(ours.total, theirs, rtol=1e-9)
    partial, _ = get_rdf(atoms, 5.0, 40, elements=(14, 8))
    np.testing.assert_allclose(ours.partials["O-Si"], partial, rtol=1e-9)


def test_ideal_gas_tends_to_one():
    rng = np.random.default_rng(1)
    frames = [Atoms("Ar500", rng.uniform(0, 12, (500, 3)), cell=[12] * 3, pbc=True) for _ in range(4)]
    rdf = radial_distribution(frames, r_max=6.0, bins=12)
    # Without periodic self-images below 12 Å the expectation is (N - 1) / N. The outer bins count over 10,000 pairs
    # per frame, one per cent of scatter each.
    assert np.array(rdf.total[4:]) == pytest.approx(499 / 500, abs=0.02)
    assert rdf.frames == 4


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([4.0, 7.0]))
def test_integral_of_g_is_the_number_of_neighbours(seed, length):
    atoms = random_silica(seed, length)  # cells much smaller than 2 r_max included
    rdf = radial_distribution([atoms], r_max=6.0, bins=30)
    volume = atoms.cell.volume
    for centre, other, count in (("Si", "O", 8), ("O", "Si", 4), ("Si", "Si", 4), ("O", "O", 8)):
        g = rdf.partials["-".join(sorted((centre, other)))]
        np.testing.assert_allclose(rdf.coordination[centre][other], integral(rdf, g, count / volume), rtol=1e-9)
    total = np.average([np.add(*rdf.coordination[s].values()) for s in ("Si", "O")], axis=0, weights=[4, 8])
    np.testing.assert_allclose(total, integral(rdf, rdf.total, 12 / volume), rtol=1e-9)


def test_coordination_of_a_primitive_cell_smaller_than_the_range():
    rdf = radial_distribution([bulk("Cu", "fcc", a=3.6)], r_max=4.0, bins=400)
    shells = np.array(rdf.coordination["Cu"]["Cu"])
    r = np.array(rdf.r)
    assert shells[r > 2.6][0] == 12  # neighbours at a / sqrt(2) = 2.55 Å
    assert shells[r > 3.65][0] == 18  # and 6 at a


def test_supercell_has_the_same_function():
    atoms = random_silica(3, length=5.0)
    small, large = (radial_distribution([a], bins=60) for a in (atoms, atoms * (2, 1, 1)))
    # Not exactly: rounding of coordinates may move a pair across the edge of a bin.
    assert max(rdf_mae(small, large).values()) < 1e-6


def test_changing_volume_keeps_a_scaled_ideal_gas_flat():
    rng = np.random.default_rng(2)
    scaled = rng.uniform(0, 1, (400, 3))
    frames = [Atoms("Ar400", scaled_positions=scaled, cell=[length] * 3, pbc=True) for length in (12, 14, 16)]
    rdf = radial_distribution(frames, r_max=6.0, bins=6)
    assert np.array(rdf.total[2:]) == pytest.approx(1.0, abs=0.05)  # the same 400 points three times: scatter of 2 %


def test_pairs_are_selected_in_any_order():
    rdf = radial_distribution([random_silica(0)], pairs=["Si-O"])
    assert list(rdf.partials) == ["O-Si"]
    assert {centre: list(others) for centre, others in rdf.coordination.items()} == {"O": ["Si"], "Si": ["O"]}


def test_differences():
    a, b = radial_distribution([random_silica(0)]), radial_distribution([random_silica(1)])
    assert set(rdf_mae(a, a).values()) == {0.0}
    assert rdf_mae(a, b)["total"] == pytest.approx(np.mean(np.abs(np.array(a.total) - b.total)))
    with pytest.raises(InputError, match="same r_max"):
        rdf_mae(a, radial_distribution([random_silica(0)], bins=10))


@pytest.mark.parametrize(
    ("frames", "pairs", "message"),
    [
        ([], None, "no frame"),
        ([Atoms("Cu")], None, "frame 0 is not periodic"),
        ([random_silica(0)], ["Si-P"], "no frame has the pair Si-P"),
        ([random_silica(0)], ["Si"], "no pair of elements"),
    ],
)
def test_what_has_no_distribution_is_refused(frames, pairs, message):
    with pytest.raises(InputError, match=message):
        radial_distribution(frames, pairs=pairs)
