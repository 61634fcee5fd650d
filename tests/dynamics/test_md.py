from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import read
from pydantic import ValidationError
from toy_calculators import Attraction, FreeGas

from pretrain_mlip.dynamics.detection import first_failure
from pretrain_mlip.dynamics.failure import FailureSettings
from pretrain_mlip.dynamics.md import MDSettings, run_md
from pretrain_mlip.errors import InputError

SHORT = MDSettings(timestep=1.0, duration_ps=0.05, end_temperature=300.0, check_every=5, save_every=10)


def copper() -> Atoms:
    return bulk("Cu", cubic=True) * (2, 2, 2)


def gas(atoms: int = 200) -> Atoms:
    rng = np.random.default_rng(0)
    return Atoms(f"Ar{atoms}", rng.uniform(0, 30, (atoms, 3)), cell=[30] * 3, pbc=True)


def test_a_sound_run_completes_and_leaves_the_input_alone():
    atoms = copper()
    before = atoms.copy()
    run = run_md(atoms, EMT(), SHORT)
    assert run.completed
    assert run.failure is None
    assert run.time_ps == pytest.approx(0.05)
    assert [frame.info["step"] for frame in run.frames] == [0, 10, 20, 30, 40, 50]
    assert len(run.thermo.time_ps) == len(run.thermo.volume) == 11
    assert atoms == before
    assert atoms.calc is None
    assert not atoms.has("momenta")


def test_same_seed_same_run_and_another_seed_another():
    runs = [run_md(copper(), EMT(), SHORT, seed=seed) for seed in (1, 1, 2)]
    positions = [run.frames[-1].positions for run in runs]
    assert np.array_equal(positions[0], positions[1])
    assert not np.allclose(positions[0], positions[2])


def test_the_start_is_maxwell_boltzmann_at_the_temperature_asked_for():
    run = run_md(gas(2000), FreeGas(), SHORT.model_copy(update={"duration_ps": 0.001}), failure=no_distances())
    # Relative standard error of the temperature of 2000 atoms is sqrt(2 / 6000) = 1.8 %; four of them are allowed.
    assert run.thermo.temperature[0] == pytest.approx(300.0, rel=0.075)


def test_the_thermostat_follows_the_ramp():
    settings = MDSettings(
        duration_ps=1.0, temperature=300, end_temperature=1300, friction=0.05, timestep=5, check_every=1
    )
    run = run_md(gas(), FreeGas(), settings, failure=no_distances())
    target = np.array(run.thermo.target_temperature)
    assert target[[0, 100, 200]] == pytest.approx([300, 800, 1300])
    # A free gas lags by the rate over twice the friction, 1 K/fs / 0.1 = 10 K. Means over 50 fs windows of 600
    # degrees of freedom scatter by up to 6 %.
    lag = np.array(run.thermo.temperature)[150:] - target[150:]
    assert abs(lag.mean()) < 0.08 * 1100


def test_the_cell_reaches_the_volume_asked_for_and_carries_the_atoms():
    settings = SHORT.model_copy(update={"volume_factor": 0.8, "duration_ps": 0.045})
    run = run_md(copper(), EMT(), settings)
    volume = np.array(run.thermo.volume)
    assert volume[-1] / volume[0] == pytest.approx(0.8)
    assert (np.diff(volume) <= 1e-9).all()
    # The atoms stay near their sites of the shrunken lattice: scaled positions move by thermal motion only.
    moved = run.frames[-1].get_scaled_positions(wrap=False) - run.frames[0].get_scaled_positions(wrap=False)
    assert np.abs(moved).max() < 0.1


def test_collapse_stops_the_run_and_keeps_only_good_frames():
    atoms = Atoms("Cu2", [[0, 0, 0], [0, 0, 2.5]])
    settings = MDSettings(timestep=1.0, duration_ps=1.0, temperature=1, check_every=1, save_every=10)
    run = run_md(atoms, Attraction(), settings)
    assert not run.completed
    assert run.failure.check == "too_close"
    assert run.time_ps == pytest.approx(run.failure.time_fs / 1000)
    # Without friction the distance is 2.5 cos(w t), w² = 2 k / m (reduced mass m / 2, k = 1 eV/Å²). Friction
    # slows the fall by a time of the order of (w t)² / 6 x friction x t, here 20 %; half is allowed.
    omega = np.sqrt(2.0 / atoms.get_masses()[0])
    expected = np.arccos(1.32 / 2.5) / omega / units.fs
    assert expected < run.failure.time_fs < 1.5 * expected
    assert first_failure(run.frames, FailureSettings()) is None
    assert run.frames[-1].info["step"] == run.failure.step - 1
    assert run.failed_frame.get_distance(0, 1) < 1.32


@pytest.mark.parametrize(
    ("how", "expected"), [("nan", "not_finite"), ("kick", "too_hot"), ("computation", "calculator")]
)
def test_a_calculator_that_breaks_is_a_failure(how, expected):
    run = run_md(copper(), FreeGas(fails_at=20, how=how), SHORT)
    assert not run.completed
    assert run.failure.check == expected
    assert 19 <= run.failure.step <= 25
    assert all(np.isfinite(frame.positions).all() for frame in run.frames)


def test_an_error_that_is_no_failure_is_raised():
    with pytest.raises(ValueError, match="wrong shape"):
        run_md(copper(), FreeGas(fails_at=20, how="bug"), SHORT)


def test_a_start_that_is_already_broken_fails_at_time_zero():
    run = run_md(Atoms("Cu2", [[0, 0, 0], [0, 0, 0.5]]), FreeGas(), SHORT)
    assert (run.time_ps, run.failure.step, run.frames) == (0.0, 0, [])


def test_trajectory_is_complete_at_the_end(tmp_path):
    path = tmp_path / "sub" / "run.extxyz"
    run = run_md(copper(), EMT(), SHORT, trajectory=path)
    frames = read(path, ":")
    assert len(frames) == len(run.frames)
    assert not path.with_name("run.extxyz.part").exists()
    np.testing.assert_allclose(frames[-1].positions, run.frames[-1].positions, atol=1e-7)  # extxyz has 8 decimals
    assert frames[-1].info["time_fs"] == 50.0
    assert frames[-1].get_potential_energy() == pytest.approx(run.thermo.potential_energy[-1])


def test_interrupted_run_leaves_its_frames(tmp_path):
    path = tmp_path / "run.extxyz"
    with pytest.raises(ValueError, match="wrong shape"):
        run_md(copper(), FreeGas(fails_at=35, how="bug"), SHORT, trajectory=path)
    assert not path.exists()
    assert len(read(tmp_path / "run.extxyz.part", ":", format="extxyz")) == 4  # steps 0, 10, 20, 30


def test_input_that_cannot_be_run_is_refused():
    with pytest.raises(InputError, match="no atoms"):
        run_md(Atoms(), EMT(), SHORT)
    with pytest.raises(InputError, match="volume_factor"):
        run_md(Atoms("Cu"), EMT(), SHORT.model_copy(update={"volume_factor": 0.5}))
    with pytest.raises(ValidationError):
        MDSettings(timestep=0)


def no_distances() -> FailureSettings:
    return FailureSettings(min_distance_fraction=None, isolation=None)
