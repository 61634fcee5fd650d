"""What an MD run is: ensemble, time step, ramps; and the runs that potentials are put to the test with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from ase import units
from pydantic import Field, model_validator

from pretrain_mlip.dynamics.failure import FailureSettings
from pretrain_mlip.settings import Settings

if TYPE_CHECKING:
    from ase import Atoms

Ensemble = Literal["nve", "langevin", "nose_hoover", "bussi", "npt", "npt_full"]
UNDER_PRESSURE = ("npt", "npt_full")
# Settings that are of some ensembles only
BELONGING: dict[str, tuple[str, ...]] = {
    "friction": ("langevin",),
    "thermostat_time": ("nose_hoover", "bussi", *UNDER_PRESSURE),
    "barostat_time": UNDER_PRESSURE,
    "pressure_gpa": UNDER_PRESSURE,
    "end_pressure_gpa": UNDER_PRESSURE,
    "volume_factor": ("nve", "langevin", "nose_hoover", "bussi"),
    "end_temperature": ("langevin", "nose_hoover", "bussi", *UNDER_PRESSURE),
}


class MDSettings(Settings):
    """One run of molecular dynamics."""

    ensemble: Ensemble = Field(
        default="langevin",
        description="nve; at constant volume with the thermostat langevin, nose_hoover (a chain of three) or bussi "
        "(stochastic velocity rescaling); under pressure with Martyna, Tobias and Klein's barostat and Nose-Hoover "
        "chains: npt (the volume changes) or npt_full (the shape too)",
    )
    timestep: float | None = Field(
        default=None,
        gt=0,
        le=10,
        description="time step in fs; null: by the lightest atom, 0.5 below 4 amu, 1 below 40 amu, else 2, a twentieth "
        "of the period of its fastest vibrations or less",
    )
    duration_ps: float = Field(default=3.0, gt=0, description="length of the run in ps")
    temperature: float = Field(default=300.0, ge=0, description="temperature at the start in K")
    end_temperature: float | None = Field(
        default=None, ge=0, description="temperature at the end in K, reached linearly; null: as at the start"
    )
    pressure_gpa: float | None = Field(
        default=None, description="pressure at the start in GPa, for ensembles under pressure; null: 0"
    )
    end_pressure_gpa: float | None = Field(
        default=None, description="pressure at the end in GPa, reached linearly; null: as at the start"
    )
    friction: float = Field(
        default=0.01, gt=0, lt=1, description="Langevin friction in 1/fs; 0.01 thermalises within 0.1 ps"
    )
    thermostat_time: float = Field(
        default=100.0, gt=0, description="time in fs in which the other thermostats exchange energy"
    )
    barostat_time: float = Field(default=1000.0, gt=0, description="time in fs in which the barostat changes the cell")
    volume_factor: float = Field(
        default=1.0,
        gt=0,
        le=10,
        description="final over initial volume, reached linearly over the run; 1 keeps the cell",
    )
    check_every: int = Field(default=10, ge=1, description="steps between checks for failure")
    save_every: int = Field(default=100, ge=1, description="steps between saved frames")

    @model_validator(mode="after")
    def _consistent(self) -> MDSettings:
        for name, ensembles in BELONGING.items():
            field = MDSettings.model_fields[name]
            if self.ensemble not in ensembles and getattr(self, name) != field.default:
                raise ValueError(
                    f"{name}: has no effect with ensemble={self.ensemble}, but with {', '.join(ensembles)}"
                )
        hottest_needed = self.ensemble not in ("nve", "langevin")
        if hottest_needed and min(self.temperature, self.last_temperature) <= 0:
            raise ValueError(f"temperature: ensemble={self.ensemble} needs one above 0 K; langevin can do without")
        if self.end_pressure_gpa is not None and self.pressure_gpa is None:
            raise ValueError("end_pressure_gpa: needs a pressure_gpa that it starts from")
        return self

    def of(self, atoms: Atoms) -> MDSettings:
        """The run of a structure, with a time step."""
        if self.timestep is not None:
            return self
        lightest = float(atoms.get_masses().min())
        return self.model_copy(update={"timestep": 0.5 if lightest < 4.0 else 1.0 if lightest < 40.0 else 2.0})

    @property
    def step_fs(self) -> float:
        """The time step in fs; see ``of``."""
        if self.timestep is None:
            raise ValueError("the time step is that of a structure: MDSettings.of(atoms)")
        return self.timestep

    @property
    def steps(self) -> int:
        """Number of steps of the whole run."""
        return max(1, round(self.duration_ps * 1000.0 / self.step_fs))

    @property
    def last_temperature(self) -> float:
        """Temperature in K that the run ends at."""
        return self.temperature if self.end_temperature is None else self.end_temperature

    @property
    def conserves_energy(self) -> bool:
        """Whether nothing exchanges energy with the atoms."""
        return self.ensemble == "nve" and self.volume_factor == 1.0

    @property
    def seeded(self) -> bool:
        """Whether random numbers act after the start."""
        return self.ensemble in ("langevin", "bussi")

    def target_temperature(self, step: int) -> float:
        """Temperature of the thermostat in K at a step; without one that of the start."""
        return self.temperature + (self.last_temperature - self.temperature) * step / self.steps

    def target_pressure(self, step: int) -> float:
        """Pressure of the barostat in eV/Å³ at a step."""
        first = self.pressure_gpa or 0.0
        last = first if self.end_pressure_gpa is None else self.end_pressure_gpa
        return (first + (last - first) * step / self.steps) * units.GPa

    def stretch(self, step: int) -> float:
        """Lengths of the cell over those of the start at a step, where its volume is prescribed."""
        return float(np.cbrt(1.0 + (self.volume_factor - 1.0) * step / self.steps))


class WatchedRun(MDSettings):
    """A run, and when it counts as failed."""

    failure: FailureSettings = Field(default_factory=FailureSettings, description="when a run counts as failed")


class HeatRun(MDSettings):
    """A Langevin run that heats up until everything has melted: through every regime, from crystal to dense gas."""

    end_temperature: float | None = Field(
        default=6000.0, ge=0, description="temperature at the end in K, reached linearly; null: as at the start"
    )


class SqueezeRun(MDSettings):
    """A Langevin run at constant temperature in a cell that shrinks."""

    temperature: float = Field(default=1000.0, ge=0, description="temperature at the start in K")
    duration_ps: float = Field(default=2.0, gt=0, description="length of the run in ps")
    volume_factor: float = Field(
        default=0.33, gt=0, le=10, description="final over initial volume, reached linearly over the run"
    )


# Of the last two: MLIP Arena (Chiang et al. 2025, arXiv:2509.20630)
PROTOCOLS: dict[str, MDSettings] = {
    "heat": HeatRun(),
    "compress": SqueezeRun(),
    "nvt": MDSettings(ensemble="nose_hoover", duration_ps=10.0),
    "nve": MDSettings(ensemble="nve", duration_ps=10.0),
    "arena_heat": MDSettings(ensemble="nose_hoover", end_temperature=3000.0, duration_ps=10.0),
    "arena_compress": MDSettings(
        ensemble="npt", end_temperature=3000.0, pressure_gpa=0.0, end_pressure_gpa=500.0, duration_ps=10.0
    ),
}
