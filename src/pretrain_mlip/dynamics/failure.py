"""What counts as a failure of a run: the settings of every check with their reasons, and how one is reported.

The defaults are loose on purpose: a check that fires must mean a broken potential, never a hot but sound liquid.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from pretrain_mlip.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping


class FailureSettings(Settings):
    """When a structure counts as failed. None (or false) switches a check off."""

    not_finite: bool = Field(
        default=True,
        description="fail when a position, momentum, force or the energy is not finite: nothing after has meaning",
    )
    min_distance_fraction: float | None = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="fail when two atoms are closer than this fraction of the sum of their covalent radii; bonds sit "
        "near 0.9, DFT liquids of 2000 to 6000 K come as close as 0.64 (Si-O), 0.71 (Ni-Ni) and 0.75 (P-P), so that "
        "0.5 is reached only by atoms that merge",
    )
    temperature_margin: float | None = Field(
        default=10_000.0,
        gt=0,
        description="fail when the kinetic temperature is above the momentary target by more than this (K): at "
        "6000 K, 24 atoms fluctuate by 1000 K (one standard deviation); a structure that falls into a hole gains "
        "10,000 K within a few fs",
    )
    temperature_jump: float | None = Field(
        default=100.0,
        gt=1,
        description="fail when the temperature exceeds both its value at the check before and the target by this "
        "factor: catches an explosion that starts in a cold run, below the margin",
    )
    max_force: float | None = Field(
        default=1000.0,
        gt=0,
        description="fail when the force on an atom is larger than this (eV/Å): the repulsion of nuclei (ZBL) reaches "
        "400 eV/Å (O-O) where two atoms are as close as half of their covalent length, and less for other pairs",
    )
    energy_fall: float | None = Field(
        default=3.0,
        gt=0,
        description="fail when the potential energy is below that of the start by more than this (eV/atom), where "
        "energy_range is not known: silica frozen from 6000 K within 1 ps releases 2.0, a hole of a potential tens",
    )
    energy_range: tuple[float, float] | None = Field(
        default=None,
        description="lowest and highest energy met in training, eV/atom above reference_energies; null: a run takes "
        "its own training structures",
    )
    reference_energies: dict[str, float] = Field(
        default_factory=dict, description="energies of elements (eV) that energy_range is counted from"
    )
    energy_margin: float | None = Field(
        default=1.0,
        gt=0,
        description="fail when the potential energy is below energy_range by more than this (eV/atom): crystals that "
        "are not among the structures of a training set have energies a few tenths lower",
    )
    energy_rise: float | None = Field(
        default=50.0,
        gt=0,
        description="fail when the potential energy is above that of the start, and above energy_range, by more than "
        "this (eV/atom): squeezing to a third of the volume took up to 6, heat less than 1",
    )
    energy_drift: float | None = Field(
        default=0.1,
        gt=0,
        description="fail when the total energy of a run without thermostat differs from that of its start by more "
        "than this (eV/atom), which is 390 K; a smooth potential with a fit time step keeps it to 0.001",
    )
    isolation: float | None = Field(
        default=2.5,
        gt=1,
        description="fail when an atom has no neighbour within this multiple of the sum of covalent radii, unless it "
        "had none at the start: bonds sit near 0.9, so that an atom has left the others behind",
    )
    volume_change: float | None = Field(
        default=4.0,
        gt=1,
        description="fail when the volume of a cell under pressure has grown or shrunk by this factor: solids under "
        "hundreds of GPa shrink less, and what expands fourfold boils",
    )
    bond_deviation: float | None = Field(
        default=None,
        gt=0,
        description="fail when a bond of the start (closer than 1.2 times the sum of covalent radii) has changed its "
        "length by more than this (Å), for molecules that must not react: 0.5 in Fu et al. (2022)",
    )
    rdf_deviation: float | None = Field(
        default=None,
        gt=0,
        description="fail when the radial distribution function of a window of the run differs from that of a "
        "reference by more than this (Å, the integral of the absolute difference over r): 3.0 for water and 1.0 for "
        "the electrolyte LiPS in Fu et al. (2022); needs reference structures",
    )
    rdf_window_ps: float = Field(default=1.0, gt=0, description="length of such a window in ps; 1 in Fu et al. (2022)")

    @classmethod
    def off(cls) -> FailureSettings:
        """No check at all; ``energy_range`` may still be given, and has no effect."""
        return cls(
            not_finite=False,
            min_distance_fraction=None,
            temperature_margin=None,
            temperature_jump=None,
            max_force=None,
            energy_fall=None,
            energy_margin=None,
            energy_rise=None,
            energy_drift=None,
            isolation=None,
            volume_change=None,
            bond_deviation=None,
            rdf_deviation=None,
        )

    @model_validator(mode="after")
    def _ordered(self) -> FailureSettings:
        if self.energy_range is not None and not self.energy_range[0] <= self.energy_range[1]:
            raise ValueError(f"energy_range: lowest before highest is expected, got {list(self.energy_range)}")
        return self


@dataclass(frozen=True)
class Failure:
    """What failed first.

    Attributes:
        check: name of the check.
        step: MD step, or index of the frame when a stored trajectory was checked.
        time_fs: time since the start of the run in fs.
        atoms: indices of the atoms at fault (at most 20), empty where the whole structure is.
        value: what was found, None where it is no finite number.
        limit: what was allowed.
        unit: unit of value and limit.
        detail: which elements or which quantity, or the text of an error.
    """

    check: str
    step: int
    time_fs: float
    atoms: tuple[int, ...] = ()
    value: float | None = None
    limit: float | None = None
    unit: str = ""
    detail: str = ""

    def message(self) -> str:
        """One line for people."""
        text = f"{self.check.replace('_', ' ')} at step {self.step} ({self.time_fs:g} fs)"
        if self.value is not None and self.limit is not None:
            text += f": {self.value:.4g} {self.unit} against a limit of {self.limit:.4g} {self.unit}"
        if self.detail:
            text += f" ({self.detail})"
        if self.atoms:
            text += f", atoms {', '.join(map(str, self.atoms))}"
        return text

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        return {**dataclasses.asdict(self), "atoms": list(self.atoms)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Failure:
        """The inverse of ``to_dict``."""
        return cls(**{**content, "atoms": tuple(content["atoms"])})
