"""Radial distribution functions beside those of ASE and LAMMPS, and what they say of their errors."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers
from ase.geometry.rdf import get_rdf
from ase.io import read
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain_mlip.deploy.lammps import cache
from pretrain_mlip.deploy.lammps.runs import SETUP, find_program, run_lammps, write_structure
from pretrain_mlip.dynamics.rdf import _jackknife, radial_distribution, rdf_deviations, rdf_mae
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


def frames_of(name: str) -> list[Atoms]:
    folder = os.environ.get("PRETRAIN_MLIP_DATA")
    if not folder:
        pytest.skip("PRETRAIN_MLIP_DATA is not set")
    return read(Path(folder) / name, ":3", format="extxyz")


@pytest.mark.parametrize("name", ["silica_sodalite_md.extxyz.gz", "nmc622_aimd.extxyz.gz"])
def test_frames_of_dft_give_what_ase_finds(name):
    for atoms in frames_of(name):
        r_max = 0.49 * min(atoms.cell.volume / np.linalg.norm(np.cross(*np.delete(atoms.cell, i, 0))) for i in range(3))
        ours = radial_distribution([atoms], r_max=r_max, bins=50)
        theirs, _ = get_rdf(atoms, r_max, 50)
        np.testing.assert_allclose(ours.total, theirs, rtol=1e-6)
        for pair, found in ours.partials.items():
            elements = [atomic_numbers[symbol] for symbol in pair.split("-")]
            np.testing.assert_allclose(found, get_rdf(atoms, r_max, 50, elements=elements)[0], rtol=1e-6, err_msg=pair)


DECK = """pair_style zero 7
pair_coeff * *
comm_modify cutoff 9
compute found all rdf 60 * * {pairs} cutoff 6
fix written all ave/time 1 1 1 c_found[*] file rdf.txt mode vector
run 0
"""


@pytest.mark.parametrize(
    "name", ["silica_sodalite_md.extxyz.gz", "nmc622_aimd.extxyz.gz", "a cell smaller than the range"]
)
def test_lammps_finds_the_same(name: str, tmp_path: Path) -> None:
    """But for like atoms, of which LAMMPS leaves out one: (N - 1) / N."""
    if cache.module_library() is None:
        pytest.skip("LAMMPS is not installed (it is part of the extra dev)")
    atoms = random_silica(4, 5.0) if name.startswith("a cell") else frames_of(name)[0]
    elements = sorted(set(atoms.symbols))
    write_structure(tmp_path / "start.data", atoms, elements)
    types = list(itertools.combinations_with_replacement(range(1, len(elements) + 1), 2))
    pairs = " ".join(f"{a} {b}" for a, b in types)
    (tmp_path / "in").write_text("\n".join([*SETUP, "read_data start.data", DECK.format(pairs=pairs)]))
    run_lammps("in", tmp_path, program=find_program())
    columns = np.loadtxt(tmp_path / "rdf.txt", skiprows=4)  # number, r, then g and coordination of each pair
    ours = radial_distribution([atoms], r_max=6.0, bins=60)
    np.testing.assert_allclose(columns[:, 1], ours.r, rtol=1e-5)
    counts = [len(atoms), *(int(np.sum(atoms.symbols == elements[a - 1])) for a, b in types)]
    names = ["total", *(f"{elements[a - 1]}-{elements[b - 1]}" for a, b in types)]
    for place, (pair, count) in enumerate(zip(names, counts, strict=True)):
        like = pair == "total" or len(set(pair.split("-"))) == 1
        found = columns[:, 2 + 2 * place] * ((count - 1) / count if like else 1.0)
        g = ours.total if pair == "total" else ours.partials[pair]
        np.testing.assert_allclose(g, found, rtol=1e-5, atol=1e-6, err_msg=pair)  # printed with six digits


def noisy(seed: int, frames: int, shift: float = 0.0) -> list[Atoms]:
    """Copies of a crystal, each rattled anew."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(frames):
        atoms = bulk("Cu", cubic=True, a=3.6 + shift)
        atoms.positions += rng.normal(scale=0.1, size=(len(atoms), 3))
        made.append(atoms)
    return made


def test_errors_are_those_of_repeated_measurements() -> None:
    """The scatter of many runs, and what one of them says of itself."""
    runs = [radial_distribution(noisy(seed, 20), 5.0, 20) for seed in range(40)]
    scatter = np.std([run.total for run in runs], axis=0, ddof=1)
    told = np.sqrt(np.mean(np.square([run.errors["total"] for run in runs]), axis=0))
    seen = scatter > 0.01
    assert seen.sum() > 5
    np.testing.assert_allclose(told[seen], scatter[seen], rtol=0.35)  # 40 runs: 11 % of each scatter alone
    reference = radial_distribution(noisy(999, 20, shift=0.1), 5.0, 20)
    found = [rdf_deviations(run, reference)["total"] for run in runs]
    of_runs = np.sqrt(np.mean([_jackknife(run.blocks["total"], np.array(reference.total)) ** 2 for run in runs]))
    assert of_runs == pytest.approx(np.std([one.mae for one in found], ddof=1), rel=0.35)
    assert all(one.mae > 3 * one.noise for one in found)
    same = [rdf_deviations(a, b)["total"] for a, b in itertools.pairwise(runs)]
    assert np.mean([one.mae for one in same]) == pytest.approx(np.mean([one.noise for one in same]), rel=0.15)


def test_blocks_follow_correlations() -> None:
    """Each frame five times in a row: as much as is known from a fifth of them."""
    frames = noisy(0, 20)
    single, repeated = (radial_distribution(one, 5.0, 20) for one in (frames, [a for a in frames for _ in range(5)]))
    np.testing.assert_allclose(repeated.errors["total"], single.errors["total"], rtol=1e-9)
    assert radial_distribution(frames[:1], 5.0, 20).errors == {}
    few = rdf_deviations(radial_distribution(frames[:1], 5.0, 20), single)["total"]
    assert (few.error, few.noise) == (None, None)
    assert len(radial_distribution(frames[:3], 5.0, 20).blocks["total"]) == 3
    assert "blocks" not in single.to_dict()
    with pytest.raises(InputError, match="0 blocks"):
        radial_distribution(frames, blocks=0)


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
