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
from pydantic import ValidationError

from pretrain_mlip.dynamics.detection import Checks, first_failure
from pretrain_mlip.dynamics.failure import Failure, FailureSettings
from pretrain_mlip.dynamics.rdf import radial_distribution
from pretrain_mlip.errors import InputError
from pretrain_mlip.structures.neighbors import find_pairs

DEFAULTS = FailureSettings()
OFF = FailureSettings.off()


def check(atoms: Atoms, settings: FailureSettings, *, before: Atoms | None = None, **now) -> Failure | None:
    """The check that a structure fails, at the first look or at the one after a sound structure."""
    checks = Checks(settings)
    if before is not None:
        assert checks.look(before, target_temperature=now.get("target_temperature")) is None
    return checks.look(atoms, **now)


def labelled(atoms: Atoms, energy: float = 0.0, force: float = 0.0) -> Atoms:
    """With an energy in eV/atom and a force on the last atom."""
    atoms = atoms.copy()
    forces = np.zeros((len(atoms), 3))
    forces[-1] = [0.0, force, 0.0]
    atoms.calc = SinglePointCalculator(atoms, energy=energy * len(atoms), forces=forces)
    return atoms


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
    for past, target, fails in ((1.0, 40.0, True), (60.0, 40.0, False), (1.0, 60.0, False)):
        found = check(atoms, DEFAULTS, before=at_temperature(past), target_temperature=target)
        assert (found is not None and found.check == "temperature_jump") == fails
    # From rest, what a start releases is no jump
    for temperature, fails in ((2_500.0, False), (3_500.0, True)):
        found = check(at_temperature(temperature), DEFAULTS, before=at_temperature(1.0), target_temperature=1.0)
        assert (found is not None and found.check == "temperature_jump") == fails


def test_every_check_can_be_switched_off():
    atoms = Atoms("Cu2", [[0, 0, 0], [0, 0, 2.2]], cell=[9, 9, 9], pbc=True)
    cold = labelled(at_temperature(1.0, atoms))
    for change in range(3):
        hot = at_temperature(1e6, atoms.copy())
        hot.positions[1, 2] = (0.1, 9.0, np.nan)[change]
        hot.set_cell([9, 9, (9, 90, 9)[change]])
        hot = labelled(hot, energy=(-1e3, 1e3, 0.0)[change], force=1e9)
        assert check(hot, DEFAULTS, before=cold, target_temperature=1.0) is not None
        assert check(hot, OFF, before=cold, target_temperature=1.0) is None
    assert {name for name, value in OFF if value in (None, False)} >= {
        name for name, field in FailureSettings.model_fields.items() if field.default is not None
    } - {"reference_energies", "rdf_window_ps"}


def test_off_lets_a_trajectory_pass_that_fails_in_every_way():
    sound = at_temperature(1.0, Atoms("Cu2", [[0, 0, 0], [0, 0, 2.2]], cell=[30, 30, 30], pbc=True))
    start = labelled(sound)

    def at_distance(z: float) -> Atoms:
        moved = sound.copy()
        moved.positions[1, 2] = z
        return labelled(moved)

    larger = sound.copy()
    larger.set_cell([60, 60, 60])
    broken = {
        "not_finite": at_distance(np.nan),
        "too_hot": labelled(at_temperature(1e6, sound.copy())),
        "temperature_jump": labelled(at_temperature(5_000.0, sound.copy())),
        "too_close": at_distance(0.1),
        "force_too_large": labelled(sound, force=1e9),
        "energy_too_low": labelled(sound, energy=-1e3),
        "energy_too_high": labelled(sound, energy=1e3),
        "energy_drift": labelled(sound, energy=1.0),
        "isolated": at_distance(15.0),
        "volume": labelled(larger),
        "bond_length": at_distance(2.8),
    }
    run = {"target_temperature": 1.0, "conserved": True}
    strict = DEFAULTS.model_copy(update={"bond_deviation": 0.5})
    for name, frame in broken.items():
        assert first_failure([start, frame], strict, **run).check == name
    for off in (OFF, OFF.model_copy(update={"energy_range": (0.0, 0.0)})):
        assert first_failure([start, *broken.values()], off, **run) is None


def test_force():
    sound = bulk("Cu", cubic=True)
    assert check(labelled(sound, force=999.0), DEFAULTS) is None
    found = check(labelled(sound, force=1001.0), DEFAULTS)
    assert (found.check, found.atoms, found.limit, found.unit) == ("force_too_large", (3,), 1000.0, "eV/Å")
    assert found.value == pytest.approx(1001.0)


@pytest.mark.parametrize(
    ("energy", "fails"), [(-6.9, None), (-7.1, "energy_too_low"), (45.9, None), (46.1, "energy_too_high")]
)
def test_energy_is_compared_with_the_start(energy, fails):
    sound = bulk("Cu", cubic=True)
    found = check(labelled(sound, energy), DEFAULTS, before=labelled(sound, -4.0))
    assert (found.check if found else None) == fails
    if found:
        assert (found.value, found.limit) == (pytest.approx(energy), -7.0 if energy < 0 else 46.0)


@pytest.mark.parametrize(("energy", "fails"), [(-103.9, None), (-104.1, "energy_too_low"), (-47.1, None)])
def test_energy_is_compared_with_the_training_structures(energy, fails):
    """Where these are known; a start far above them may fall as far as they are."""
    atoms = Atoms("CuAu", [[0, 0, 0], [0, 0, 2.5]])
    known = DEFAULTS.model_copy(update={"energy_range": (-3.0, 2.0), "reference_energies": {"Cu": -50.0, "Au": -150.0}})
    found = check(labelled(atoms, energy), known, before=labelled(atoms, -97.0))
    assert (found.check if found else None) == fails
    assert check(labelled(atoms, -47.9), known, before=labelled(atoms, -99.0)).check == "energy_too_high"


def test_energy_range_in_order():
    with pytest.raises(ValidationError, match="lowest before highest"):
        FailureSettings(energy_range=(1.0, -1.0))


def test_energies_that_nobody_computed_are_not_checked():
    sound = bulk("Cu", cubic=True)
    assert check(labelled(sound, -1e3), DEFAULTS, before=sound) is None
    assert check(sound, DEFAULTS, before=labelled(sound, 1e3)) is None


@pytest.mark.parametrize("sign", [-1, 1])
def test_drift_is_that_of_the_total_energy_and_of_runs_that_conserve_it(sign):
    start = labelled(at_temperature(300.0), 1.0)
    kinetic = 1.5 * units.kB * 300.0
    exchanged = labelled(at_temperature(600.0), 1.0 - kinetic)
    drifted = labelled(at_temperature(600.0), 1.0 - kinetic + sign * 0.11)
    checks = Checks(DEFAULTS, conserved=True)
    assert checks.look(start) is None
    assert checks.look(exchanged) is None
    found = checks.look(drifted, step=7)
    assert (found.check, found.step, found.limit) == ("energy_drift", 7, 0.1)
    assert found.value == pytest.approx(sign * 0.11)
    assert check(drifted, DEFAULTS, before=start) is None


@pytest.mark.parametrize("pbc", [False, True])
def test_an_atom_that_leaves_is_found_one_that_was_alone_is_not(pbc):
    length = 2 * covalent_radii[29]
    positions = [[0, 0, 0], [0, 0, 2.5], [30.0, 0, 0]]
    start = Atoms("Cu3", positions, cell=[60, 60, 60], pbc=pbc)
    gone, near = start.copy(), start.copy()
    gone.positions[1, 2], near.positions[1, 2] = 2.5 * length + 0.01, 2.5 * length - 0.01
    assert check(near, DEFAULTS, before=start) is None
    found = check(gone, DEFAULTS, before=start)
    assert (found.check, found.atoms, found.detail) == ("isolated", (0, 1), "Cu")
    across = gone.copy()
    across.positions[1, 2] = 57.5  # near the first atom, where the cell is periodic
    assert (check(across, DEFAULTS, before=start) is None) == pbc


@pytest.mark.parametrize(("factor", "fails"), [(3.9, False), (4.1, True), (1 / 3.9, False), (1 / 4.1, True)])
def test_volume(factor, fails):
    start = Atoms("Cu", cell=[4, 4, 4], pbc=True)
    other = start.copy()
    other.set_cell(start.cell * factor ** (1 / 3))
    loose = DEFAULTS.model_copy(update={"isolation": None, "min_distance_fraction": None})
    found = check(other, loose, before=start)
    assert (found is not None) == fails
    if found:
        assert (found.check, found.unit) == ("volume", "Å³")
        assert found.value == pytest.approx(64 * factor)
        assert found.limit == pytest.approx(256 if factor > 1 else 16)
    checks = Checks(loose, ramped=True)
    assert checks.look(start) is checks.look(other) is None


def test_bonds_of_a_molecule():
    """Also those across the boundary, and after atoms were folded into the cell."""
    settings = FailureSettings(bond_deviation=0.5, isolation=None)
    start = Atoms("OH2", [[0.1, 5, 5], [9.2, 5, 5], [0.1, 5.9, 5]], cell=[10, 10, 10], pbc=True)
    longer, wrapped = start.copy(), start.copy()
    longer.positions[1, 0] -= 0.51
    wrapped.positions[1, 0] -= 10.0
    assert check(wrapped, settings, before=start) is None
    assert check(longer, DEFAULTS, before=start) is None
    found = check(longer, settings, before=start)
    assert (found.check, found.atoms, found.detail) == ("bond_length", (0, 1), "O-H")
    assert found.value == pytest.approx(0.51)


def test_radial_distribution_of_windows():
    crystal = bulk("Cu", cubic=True) * (2, 2, 2)
    reference = radial_distribution([crystal], 6.0, 120)
    settings = FailureSettings(rdf_deviation=1.0, rdf_window_ps=0.1)
    melt = crystal.copy()
    melt.rattle(0.5, seed=1)
    loose = settings.model_copy(update={"min_distance_fraction": None})
    frames = [*[crystal] * 25, *[melt] * 20]
    assert first_failure(frames[:25], loose, frame_interval_fs=10.0, reference=reference) is None
    found = first_failure(frames, loose, frame_interval_fs=10.0, reference=reference)
    # Windows end at 100, 200, 300 fs; the third holds both crystals and melts
    assert (found.check, found.time_fs, found.unit) == ("rdf", 300.0, "Å")
    third = radial_distribution(frames[21:31], 6.0, 120)
    assert found.value == pytest.approx(6.0 * np.mean(np.abs(np.subtract(third.total, reference.total))))
    with pytest.raises(InputError, match="reference"):
        Checks(settings)


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
