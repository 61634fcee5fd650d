from __future__ import annotations

import json

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import covalent_radii
from ase.io import read
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain_mlip.dynamics.failure import Failure, FailureSettings, check, first_failure
from pretrain_mlip.structures.neighbors import find_pairs

DEFAULTS = FailureSettings()
OFF = FailureSettings(not_finite=False, min_distance_fraction=None, temperature_margin=None, temperature_jump=None)


def at_temperature(kelvin: float, atoms: Atoms | None = None) -> Atoms:
    """Every component of every momentum the same, so that the kinetic temperature is exact."""
    atoms = bulk("Cu", cubic=True) if atoms is None else atoms
    masses = atoms.get_masses()[:, None]
    atoms.set_momenta(np.sqrt(masses * units.kB * kelvin) * np.ones((1, 3)))
    return atoms


def test_a_sound_crystal_passes():
    assert check(at_temperature(300.0), DEFAULTS, target_temperature=300.0) is None


@pytest.mark.parametrize("kind", ["zero cell", "slab", "bulk"])
def test_close_pair_is_found_with_and_without_a_cell(kind):
    limit = 0.5 * 2 * covalent_radii[29]
    for distance, fails in ((limit - 0.01, True), (limit + 0.01, False)):
        atoms = Atoms("Cu3", [[0, 0, 0], [5, 0, 0], [5, 0, distance]])
        if kind != "zero cell":
            atoms.set_cell([9, 9, 0] if kind == "slab" else [9, 9, 9])
            atoms.pbc = [True, True, kind == "bulk"]
        found = check(atoms, DEFAULTS)
        assert (found is not None) == fails
        if found:
            assert (found.check, found.atoms) == ("too_close", (1, 2))
            assert found.value == pytest.approx(distance)
            assert found.limit == pytest.approx(limit)


def test_distance_to_periodic_images_counts_even_to_an_atoms_own():
    across = Atoms("Cu2", [[0.1, 0, 0], [8.9, 0, 0]], cell=[9, 9, 9], pbc=True)
    own = Atoms("Cu", cell=[1.2, 9, 9], pbc=True)
    assert check(across, DEFAULTS).atoms == (0, 1)
    assert check(own, DEFAULTS).atoms == (0, 0)


def test_coincident_atoms_are_too_close():
    assert check(Atoms("O2", [[0, 0, 0], [0, 0, 0]]), DEFAULTS).value == 0.0


def test_limit_depends_on_the_pair():
    # 0.8 Å: less than half of 2 x 1.11 (Si-Si) but more than half of 2 x 0.66 (O-O).
    assert check(Atoms("Si2", [[0, 0, 0], [0, 0, 0.8]]), DEFAULTS).check == "too_close"
    assert check(Atoms("O2", [[0, 0, 0], [0, 0, 0.8]]), DEFAULTS) is None


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([(True,) * 3, (False,) * 3, (True, True, False)]))
def test_pairs_within_agrees_with_brute_force(seed, pbc):
    rng = np.random.default_rng(seed)
    cell = np.diag([4.0, 5.0, 6.0]) + rng.uniform(-1, 1, (3, 3))
    atoms = Atoms("Si2O3", scaled_positions=rng.uniform(-0.5, 1.5, (5, 3)), cell=cell, pbc=pbc)
    cutoff = {(14, 14): 3.0, (8, 14): 2.0, (8, 8): 2.5}
    spans = [range(-3, 4) if periodic else range(1) for periodic in pbc]
    expected = []
    for shift in np.array(np.meshgrid(*spans)).reshape(3, -1).T:
        vectors = atoms.positions[None] + shift @ cell - atoms.positions[:, None]
        distances = np.linalg.norm(vectors, axis=-1)
        for i, j in np.ndindex(5, 5):
            pair = tuple(sorted((int(atoms.numbers[i]), int(atoms.numbers[j]))))
            if (i != j or shift.any()) and distances[i, j] < cutoff[pair]:
                expected.append((i, j, distances[i, j]))
    found = list(zip(*find_pairs("ijd", atoms, cutoff), strict=True))
    # Sorting by rounded distance makes the order unique; 1e-6 Å is far above rounding and below any real difference.
    assert len(found) == len(expected)
    for a, b in zip(sorted(found), sorted(expected), strict=True):
        assert a == pytest.approx(b, abs=1e-6)


@pytest.mark.parametrize("name", ["positions", "momenta", "forces", "energy"])
def test_what_is_not_finite_is_named(name):
    atoms = at_temperature(300.0)
    energy, forces = 0.0, np.zeros((4, 3))
    if name in ("positions", "momenta"):
        atoms.arrays[name][2, 1] = np.inf
    elif name == "forces":
        forces[2, 1] = np.nan
    else:
        energy = np.nan
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    found = check(atoms, DEFAULTS)
    assert (found.check, found.detail) == ("not_finite", name)
    assert found.atoms == (() if name == "energy" else (2,))
    json.dumps(found.to_dict(), allow_nan=False)


def test_results_of_another_geometry_are_not_looked_at():
    atoms = at_temperature(300.0)
    atoms.calc = SinglePointCalculator(atoms, energy=np.nan)
    assert check(atoms, DEFAULTS) is not None
    atoms.rattle(0.01)
    assert check(atoms, DEFAULTS) is None


def test_too_hot_is_measured_from_the_momentary_target():
    atoms = at_temperature(12_000.0)
    assert check(atoms, DEFAULTS, target_temperature=2_001.0) is None
    found = check(atoms, DEFAULTS, target_temperature=1_999.0)
    assert (found.check, found.limit) == ("too_hot", 11_999.0)
    assert found.value == pytest.approx(12_000.0)


def test_hundredfold_jump_needs_both_a_cold_past_and_a_cold_target():
    atoms = at_temperature(5_000.0)
    jump = {"previous_temperature": 1.0, "target_temperature": 40.0}
    assert check(atoms, DEFAULTS, **jump).check == "temperature_jump"
    assert check(atoms, DEFAULTS, **{**jump, "previous_temperature": 60.0}) is None
    assert check(atoms, DEFAULTS, **{**jump, "target_temperature": 60.0}) is None


def test_every_check_can_be_switched_off():
    atoms = at_temperature(1e6, Atoms("Cu2", [[0, 0, 0], [0, 0, 0.1]]))
    assert check(atoms, OFF, target_temperature=1.0, previous_temperature=1.0) is None
    atoms.positions[0] = np.nan
    assert check(atoms, OFF, target_temperature=1.0, previous_temperature=1.0) is None


def test_first_failure_of_a_stored_trajectory():
    frames = [Atoms("Cu2", [[0, 0, 0], [0, 0, z]]) for z in (3.0, 2.0, 1.0, 0.5)]
    found = first_failure(frames, DEFAULTS, frame_interval_fs=50.0)
    assert (found.step, found.time_fs, found.value) == (2, 100.0, 1.0)
    assert first_failure(frames[:2], DEFAULTS) is None
    frames[2].info["time_fs"] = 7.0
    assert first_failure(frames, DEFAULTS).time_fs == 7.0


def test_failure_survives_json_and_speaks_plainly():
    failure = Failure("too_close", 120, 60.0, (3, 7), 0.51, 0.885, "Å", "O-Si")
    assert Failure.from_dict(json.loads(json.dumps(failure.to_dict()))) == failure
    text = "too close at step 120 (60 fs): 0.51 Å against a limit of 0.885 Å (O-Si), atoms 3, 7"
    assert failure.message() == text


def test_no_frame_of_the_embedded_dft_data_counts_as_failed():
    from importlib.resources import files

    for name in ("silica_mini", "phosphorus_mini"):
        with (files("pretrain_mlip") / "data" / f"{name}.extxyz").open() as stream:
            frames = read(stream, ":", format="extxyz")
        assert first_failure(frames, DEFAULTS) is None
