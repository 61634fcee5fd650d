"""Integrators of ASE under one face: their targets change while they run, and a restart finds all they remember."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import units
from ase.md.bussi import Bussi
from ase.md.langevin import Langevin
from ase.md.nose_hoover_chain import MTKNPT, IsotropicMTKNPT, NoseHooverChainNVT
from ase.md.verlet import VelocityVerlet

from pretrain_mlip.dynamics.protocols import UNDER_PRESSURE
from pretrain_mlip.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

    from pretrain_mlip.dynamics.protocols import MDSettings

# Where ASE's chains keep what a restart needs; it has no functions for that, nor for new targets
MEMORY = ("_eta", "_p_eta", "_xi", "_p_xi", "_p_eps", "_p_g")


class Integrator:
    """Takes atoms through time by one of the ensembles of ``MDSettings``."""

    def __init__(self, atoms: Atoms, settings: MDSettings, rng: np.random.Generator) -> None:
        """Set up at the targets of the first step.

        Args:
            atoms: with their calculator and momenta.
            settings: with a time step.
            rng: of the thermostat.

        Raises:
            InputError: the ensemble cannot be had for this structure.
        """
        self.atoms, self.rng, self.ensemble = atoms, rng, settings.ensemble
        if self.ensemble in ("nose_hoover", *UNDER_PRESSURE) and atoms.constraints:
            raise InputError(f"ensemble {self.ensemble}: no constraints are possible; langevin takes them")
        if self.ensemble in UNDER_PRESSURE and not (atoms.pbc.all() and atoms.cell.rank == 3):
            raise InputError(f"ensemble {self.ensemble}: needs a structure that is periodic in three directions")
        if self.ensemble in UNDER_PRESSURE and not _gives_stress(atoms.calc):
            raise InputError(f"ensemble {self.ensemble}: needs stress, which {type(atoms.calc).__name__} does not give")
        self.dynamics = self._make(settings)
        if self.ensemble in UNDER_PRESSURE:
            # ASE asks for forces first and for the stress of the same structure after, which many calculators would
            # compute in two goes
            self.dynamics._get_forces = self._forces_with_stress

    def _make(self, settings: MDSettings) -> Any:
        atoms, timestep = self.atoms, settings.step_fs * units.fs
        bath: dict[str, Any] = {"temperature_K": settings.temperature, "tdamp": settings.thermostat_time * units.fs}
        press: dict[str, Any] = {"pressure_au": settings.target_pressure(0), "pdamp": settings.barostat_time * units.fs}
        match self.ensemble:
            case "nve":
                return VelocityVerlet(atoms, timestep)
            case "langevin":
                friction = settings.friction / units.fs
                return Langevin(
                    atoms, timestep, temperature_K=settings.temperature, friction=friction, fixcm=False, rng=self.rng
                )
            case "bussi":
                return Bussi(atoms, timestep, settings.temperature, settings.thermostat_time * units.fs, rng=self.rng)
            case "nose_hoover":
                return NoseHooverChainNVT(atoms, timestep, **bath)
            case "npt":
                return IsotropicMTKNPT(atoms, timestep, **bath, **press)
            case _:
                return MTKNPT(atoms, timestep, **bath, **press)

    def step(self) -> None:
        """One time step."""
        self.dynamics.step()

    def _forces_with_stress(self) -> np.ndarray:
        self.dynamics._update_atoms()
        self.atoms.get_stress()
        return self.atoms.get_forces(md=True)

    def notice(self) -> None:
        """Take note of positions, momenta and a cell that were changed from outside: the chains keep copies."""
        dynamics: Any = self.dynamics
        if self.ensemble in ("nose_hoover", *UNDER_PRESSURE):
            dynamics._q, dynamics._p = self.atoms.get_positions(), self.atoms.get_momenta()
        if self.ensemble == "npt":
            dynamics._cell0, dynamics._volume0, dynamics._eps = (
                self.atoms.cell.array.copy(),
                self.atoms.get_volume(),
                0.0,
            )
        elif self.ensemble == "npt_full":
            dynamics._h = self.atoms.cell.array.copy()

    def set_targets(self, temperature: float, pressure: float) -> None:
        """Change temperature (K) and pressure (eV/Å³) of what there is of thermostats and barostats."""
        dynamics: Any = self.dynamics
        if self.ensemble == "langevin":
            dynamics.set_temperature(temperature_K=temperature)
        elif self.ensemble == "bussi":
            dynamics.temp = units.kB * temperature
            dynamics.target_kinetic_energy = 0.5 * dynamics.temp * dynamics.ndof
        elif self.ensemble != "nve":
            self._set_chain(temperature, pressure)

    def _set_chain(self, temperature: float, pressure: float) -> None:
        """Masses of the chains and of the barostat are proportional to the temperature: periods stay as they are."""
        for part in self._parts():
            ratio = units.kB * temperature / part._kT
            part._kT *= ratio
            for mass in ("_Q", "_R", "_W"):
                if hasattr(part, mass):
                    setattr(part, mass, getattr(part, mass) * ratio)
        if self.ensemble in UNDER_PRESSURE:
            self.dynamics._temperature_K = temperature
            self.dynamics._pressure_au = pressure

    def _parts(self) -> list[Any]:
        """Objects of ASE with state of their own."""
        found = (getattr(self.dynamics, name, None) for name in ("_thermostat", "_barostat"))
        parts = [part for part in found if part is not None]
        return [*parts, self.dynamics] if self.ensemble in UNDER_PRESSURE else parts

    def state(self) -> dict[str, np.ndarray]:
        """Everything but the atoms that the next step depends on."""
        found = {"rng": np.array(json.dumps(self.rng.bit_generator.state))}
        for number, part in enumerate(self._parts()):
            found |= {f"{number}{name}": np.array(getattr(part, name)) for name in MEMORY if hasattr(part, name)}
        return found

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Take over what ``state`` gave, and the atoms as they are."""
        self.notice()
        self.rng.bit_generator.state = json.loads(str(state["rng"]))
        for number, part in enumerate(self._parts()):
            for name in MEMORY:
                if hasattr(part, name):
                    value = state[f"{number}{name}"]
                    setattr(part, name, value.copy() if value.ndim else float(value))


def _gives_stress(calculator: Any) -> bool:
    """Whether it says so; those that do not say what they give are tried."""
    return "stress" in getattr(calculator, "implemented_properties", ["stress"])
