"""Ensembles: averages, ramps, what they refuse, and runs that go on after an interruption."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import all_changes
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.io import read
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from pydantic import ValidationError
from toy_calculators import FreeGas

from pretrain_mlip.dynamics.ensembles import Integrator
from pretrain_mlip.dynamics.failure import FailureSettings
from pretrain_mlip.dynamics.md import MDSettings, run_md
from pretrain_mlip.dynamics.protocols import PROTOCOLS, Ensemble
from pretrain_mlip.dynamics.restart import whole_frames
from pretrain_mlip.errors import InputError

ENSEMBLES: tuple[str, ...] = get_args(Ensemble)
FAST = {"thermostat_time": 20.0, "barostat_time": 300.0}


class Counted(EMT):
    """Counts its calls, and is interrupted at one of them."""

    def __init__(self, stop_at: int | None = None) -> None:
        super().__init__()
        self.calls, self.stop_at = 0, stop_at

    def calculate(self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes) -> None:
        self.calls += 1
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        super().calculate(atoms, properties, system_changes)


def copper() -> Atoms:
    return bulk("Cu", cubic=True) * (2, 2, 2)


def settings(ensemble: str, **others: Any) -> MDSettings:
    own: dict[str, Any] = {"duration_ps": 0.1, "check_every": 5, "save_every": 10, "timestep": 2.0}
    if ensemble == "langevin":
        own["friction"] = 0.05
    elif ensemble != "nve":
        own["thermostat_time"] = FAST["thermostat_time"]
    if ensemble.startswith("npt"):
        own["barostat_time"] = FAST["barostat_time"]
    return MDSettings(ensemble=ensemble, **{**own, **others})  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_averages(ensemble: str) -> None:
    """Temperature, and pressure where it is prescribed, of a crystal that has had time to settle."""
    pressure = {"pressure_gpa": 4.0} if ensemble.startswith("npt") else {}
    given = settings(ensemble, duration_ps=3.0, timestep=4.0, temperature=400.0, **pressure)
    run = run_md(copper(), EMT(), given, seed=1)
    assert run.completed
    settled = slice(len(run.thermo.time_ps) // 4, None)
    found = float(np.mean(run.thermo.temperature[settled]))
    # A temperature of 32 atoms scatters by sqrt(2 / 96) = 14 %, a mean of some 50 independent ones by 2 %
    expected = 400.0
    if ensemble == "nve":  # half of the kinetic energy of the start goes to the potential
        expected = run.thermo.temperature[0] / 2
    assert found == pytest.approx(expected, rel=0.08)
    if pressure:
        pressures = [_pressure(frame) for frame in run.frames[len(run.frames) // 4 :]]
        # 32 atoms: a scatter of 0.6 GPa
        assert np.mean(pressures) == pytest.approx(4.0, abs=0.5)
        shapes = np.array([frame.cell.array / frame.cell.volume ** (1 / 3) for frame in run.frames])
        assert (np.ptp(shapes, axis=0).max() > 1e-3) == (ensemble == "npt_full")


def _pressure(frame: Atoms) -> float:
    frame.calc = EMT()
    return -float(np.trace(frame.get_stress(voigt=False, include_ideal_gas=True))) / 3 / units.GPa


def test_without_a_thermostat_the_energy_is_conserved() -> None:
    run = run_md(copper(), EMT(), settings("nve", duration_ps=1.0))
    total = [frame.get_potential_energy() + frame.get_kinetic_energy() for frame in run.frames]
    assert np.ptp(total) / 32 < 1e-3


@pytest.mark.parametrize("ensemble", ["bussi", "nose_hoover"])
def test_thermostats_follow_a_ramp(ensemble: str) -> None:
    """Of a gas without forces, which knows nothing but the thermostat."""
    rng = np.random.default_rng(0)
    gas = Atoms("Ar200", rng.uniform(0, 30, (200, 3)), cell=[30] * 3, pbc=True)
    free = FailureSettings(min_distance_fraction=None, isolation=None)
    run = run_md(gas, FreeGas(), settings(ensemble, duration_ps=2.0, end_temperature=1300.0), failure=free)
    target = np.array(run.thermo.target_temperature)
    assert target[[0, 100, 200]] == pytest.approx([300, 800, 1300])
    # A chain swings about its target; a lag of its time, 20 fs, is 10 K
    lag = (np.array(run.thermo.temperature) - target)[100:]
    assert abs(lag.mean()) < 0.05 * 1050


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_new_targets_are_those_of_a_run_that_begins_with_them(ensemble: str) -> None:
    """Temperatures, pressures, and masses of chains and barostats, which are proportional to the temperature."""
    pressure = {"pressure_gpa": 3.0} if ensemble.startswith("npt") else {}
    later = settings(ensemble, **({} if ensemble == "nve" else {"temperature": 700.0}), **pressure)
    paths = []
    for first in (settings(ensemble), later):
        atoms = copper()
        atoms.rattle(0.05, seed=1)
        atoms.calc = EMT()
        MaxwellBoltzmannDistribution(atoms, temperature_K=400, rng=np.random.default_rng(2))
        integrator = Integrator(atoms, first, np.random.default_rng(3))
        integrator.set_targets(700.0, later.target_pressure(0))
        for _ in range(10):
            integrator.step()
        paths.append(np.concatenate([atoms.positions, atoms.get_momenta(), atoms.cell.array]))
    np.testing.assert_allclose(paths[0], paths[1], rtol=1e-10, atol=1e-10)  # masses by a ratio, and by the formula


def test_pressure_follows_a_ramp() -> None:
    given = settings("npt", duration_ps=1.0, barostat_time=300.0, pressure_gpa=0.0, end_pressure_gpa=20.0)
    run = run_md(copper(), EMT(), given)
    late = [(frame.info["time_fs"] / 50.0, _pressure(frame)) for frame in run.frames if frame.info["step"] > 250]
    wanted, found = np.mean(late, axis=0)
    assert found == pytest.approx(wanted, abs=2.0)  # half of what the barostat lags by, 300 fs of the ramp
    assert run.thermo.volume[-1] < 0.92 * run.thermo.volume[0]


@pytest.mark.parametrize("ensemble", ["nve", "langevin", "bussi", "nose_hoover"])
def test_volume_ramps_carry_the_atoms(ensemble: str) -> None:
    run = run_md(copper(), EMT(), settings(ensemble, volume_factor=0.8))
    assert run.completed
    assert run.frames[-1].cell.volume / run.frames[0].cell.volume == pytest.approx(0.8)
    moved = run.frames[-1].get_scaled_positions(wrap=False) - run.frames[0].get_scaled_positions(wrap=False)
    assert np.abs(moved).max() < 0.1


@pytest.mark.parametrize("ensemble", ["npt", "npt_full"])
def test_one_calculation_a_step(ensemble: str) -> None:
    calculator = Counted()
    run_md(copper(), calculator, settings(ensemble))
    assert calculator.calls == 51


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_an_interrupted_run_goes_on(ensemble: str, tmp_path: Path) -> None:
    """As if nothing had happened, but for the rounding of EMT's sums, in the middle of a ramp."""
    ramp: dict[str, Any] = {} if ensemble == "nve" else {"end_temperature": 600.0}
    ramp |= {"pressure_gpa": 1.0, "end_pressure_gpa": 9.0} if ensemble.startswith("npt") else {"volume_factor": 0.9}
    given = settings(ensemble, save_every=7, **ramp)
    whole = run_md(copper(), EMT(), given, seed=5, trajectory=tmp_path / "whole.extxyz")
    path = tmp_path / "parts.extxyz"
    for stop in (40, 9):  # the second one begins at the last frame that was saved
        with pytest.raises(KeyboardInterrupt):
            run_md(copper(), Counted(stop), given, seed=5, trajectory=path, resume=True)
        assert path.with_name("parts.extxyz.restart").exists()
    calculator = Counted()
    parts = run_md(copper(), calculator, given, seed=5, trajectory=path, resume=True)
    assert calculator.calls < 30  # of 51 and those after changes of the cell
    assert [frame.info["step"] for frame in parts.frames] == [frame.info["step"] for frame in whole.frames]
    assert parts.frames[-1].positions == pytest.approx(whole.frames[-1].positions, abs=1e-9)
    assert parts.frames[-1].cell.array == pytest.approx(whole.frames[-1].cell.array, abs=1e-9)
    assert parts.thermo.time_ps == whole.thermo.time_ps
    assert parts.thermo.temperature == pytest.approx(whole.thermo.temperature)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["parts.extxyz", "whole.extxyz"]
    stored: Sequence[Atoms] = read(path, ":")  # type: ignore[assignment]
    assert [frame.info["step"] for frame in stored] == [*range(0, 50, 7), 50]


def test_a_run_that_has_ended_does_not_begin_again(tmp_path: Path) -> None:
    """Unless that is wanted; and what an older run has left is not gone on with."""
    path = tmp_path / "md.extxyz"
    run_md(copper(), EMT(), settings("langevin"), trajectory=path)
    before = path.read_bytes()
    with pytest.raises(InputError, match="has ended"):
        run_md(copper(), EMT(), settings("langevin"), trajectory=path, resume=True)
    assert path.read_bytes() == before
    with pytest.raises(KeyboardInterrupt):
        run_md(copper(), Counted(30), settings("langevin"), trajectory=path)
    with pytest.raises(KeyboardInterrupt):
        run_md(copper(), Counted(1), settings("langevin"), seed=1, trajectory=path)
    assert not path.with_name("md.extxyz.restart").exists()


def test_another_run_does_not_go_on(tmp_path: Path) -> None:
    path = tmp_path / "md.extxyz"
    given = settings("langevin")
    with pytest.raises(KeyboardInterrupt):
        run_md(copper(), Counted(30), given, trajectory=path)
    others = [
        ({"settings": given.model_copy(update={"temperature": 301.0})}, "temperature=300.0"),
        ({"seed": 1}, "seed=0"),
        ({"atoms": bulk("Cu", cubic=True) * (2, 2, 3)}, "structure=Cu32"),
        ({"failure": FailureSettings(max_force=None)}, "max_force"),
    ]
    for change, words in others:
        arguments = {"atoms": copper(), "calculator": EMT(), "settings": given, "trajectory": path, **change}
        with pytest.raises(InputError, match=words):
            run_md(**arguments, resume=True)
    path.with_name("md.extxyz.restart").write_bytes(b"PK damaged")
    with pytest.raises(InputError, match="damaged"):
        run_md(copper(), EMT(), given, trajectory=path, resume=True)
    assert run_md(copper(), EMT(), given, trajectory=path).completed


def test_a_trajectory_cut_off_within_a_frame(tmp_path: Path) -> None:
    path = tmp_path / "md.extxyz"
    part = path.with_name("md.extxyz.part")
    with pytest.raises(KeyboardInterrupt):
        run_md(copper(), Counted(35), settings("langevin"), trajectory=path)
    text = part.read_text()
    part.write_text(text + text[: len(text) // 7])  # the disk was full, or the power went
    assert [frame.info["step"] for frame in whole_frames(part)] == [0, 10, 20, 30]
    run = run_md(copper(), EMT(), settings("langevin"), trajectory=path, resume=True)
    assert [frame.info["step"] for frame in run.frames] == [0, 10, 20, 30, 40, 50]
    assert len(read(path, ":")) == 6
    with pytest.raises(KeyboardInterrupt):
        run_md(copper(), Counted(35), settings("langevin"), trajectory=path)
    part.write_text(text[: len(text) * 7 // 8])
    with pytest.raises(InputError, match=r"md.extxyz.part: lacks frames up to step 30"):
        run_md(copper(), EMT(), settings("langevin"), trajectory=path, resume=True)


def test_time_step_of_the_lightest_atom() -> None:
    for atoms, expected in ((molecule("H2O"), 0.5), (Atoms("SiO"), 1.0), (copper(), 2.0)):
        assert MDSettings().of(atoms).timestep == expected
        assert MDSettings(timestep=3.0).of(atoms).timestep == 3.0
    with pytest.raises(ValueError, match=r"MDSettings\.of"):
        _ = MDSettings().steps


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"ensemble": "nve", "end_temperature": 500}, "end_temperature"),
        ({"ensemble": "nve", "friction": 0.1}, "friction"),
        ({"ensemble": "langevin", "pressure_gpa": 1.0}, "pressure_gpa"),
        ({"ensemble": "npt", "volume_factor": 0.5}, "volume_factor"),
        ({"ensemble": "npt", "end_pressure_gpa": 5.0}, "pressure_gpa"),
        ({"ensemble": "bussi", "temperature": 0}, "above 0 K"),
        ({"ensemble": "nose_hoover", "end_temperature": 0}, "above 0 K"),
        ({"ensemble": "nph"}, "ensemble"),
    ],
)
def test_settings_that_contradict_each_other(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        MDSettings(**given)


def test_structures_that_an_ensemble_cannot_have() -> None:
    held = copper()
    held.set_constraint(FixAtoms([0]))
    slab = copper()
    slab.pbc = [True, True, False]
    for atoms, calculator, ensemble, words in (
        (held, EMT(), "nose_hoover", "constraints"),
        (slab, EMT(), "npt", "periodic in three"),
        (copper(), FreeGas(), "npt_full", "needs stress"),
    ):
        with pytest.raises(InputError, match=words):
            run_md(atoms, calculator, settings(ensemble))


def test_protocols_are_runs_that_can_be_made() -> None:
    for name, protocol in PROTOCOLS.items():
        short = protocol.model_copy(update={"duration_ps": 0.02})
        assert run_md(copper(), EMT(), short).completed, name
