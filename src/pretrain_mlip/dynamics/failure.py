"""Has this structure failed? One small function per check, the same for a running and for a stored trajectory.

The defaults are loose on purpose: a check that fires must mean a broken potential, never a hot but sound liquid.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.calculators.calculator import PropertyNotImplementedError
from ase.data import covalent_radii
from pydantic import Field

from pretrain_mlip.settings import Settings
from pretrain_mlip.structures.neighbors import find_pairs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ase import Atoms

logger = logging.getLogger(__name__)
COLDEST = 30.0  # K, what a jump is measured from at least: a run from rest may release the strain of its start
MAX_LISTED_ATOMS = 20  # an exploded box would otherwise list every atom in every message


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


@dataclass(frozen=True)
class Snapshot:
    """All that a check may look at: a structure at a moment of a run."""

    atoms: Atoms
    step: int
    time_fs: float
    target_temperature: float | None  # K, None where no thermostat acts
    previous_temperature: float | None  # K at the check before

    @property
    def temperature(self) -> float | None:
        """Kinetic temperature in K; None where the structure carries no momenta."""
        return float(self.atoms.get_temperature()) if self.atoms.has("momenta") else None

    def failure(self, check: str, **found: Any) -> Failure:
        """A failure at this moment."""
        return Failure(check, self.step, self.time_fs, **found)


def check_finite(now: Snapshot, settings: FailureSettings) -> Failure | None:
    """Positions, momenta and whatever energy and forces the calculator holds for exactly this structure."""
    if not settings.not_finite:
        return None
    quantities = {
        "positions": now.atoms.positions,
        "momenta": now.atoms.arrays.get("momenta"),
        "forces": _known_result(now.atoms, "forces"),
        "energy": _known_result(now.atoms, "energy"),
    }
    for name, values in quantities.items():
        if values is not None and not np.isfinite(values).all():
            rows = np.atleast_1d(np.asarray(values))
            bad = np.flatnonzero(~np.isfinite(rows).all(axis=-1)) if rows.ndim == 2 else np.empty(0, int)
            return now.failure("not_finite", atoms=tuple(bad[:MAX_LISTED_ATOMS].tolist()), detail=name)
    return None


def check_temperature(now: Snapshot, settings: FailureSettings) -> Failure | None:
    """Kinetic temperature above target + margin."""
    temperature = now.temperature
    if settings.temperature_margin is None or temperature is None or now.target_temperature is None:
        return None
    limit = now.target_temperature + settings.temperature_margin
    if temperature <= limit:
        return None
    return now.failure("too_hot", atoms=_hottest(now.atoms), value=temperature, limit=limit, unit="K")


def check_temperature_jump(now: Snapshot, settings: FailureSettings) -> Failure | None:
    """Kinetic temperature far above both what it was at the check before and what the thermostat asks for."""
    temperature = now.temperature
    if settings.temperature_jump is None or temperature is None or now.previous_temperature is None:
        return None
    limit = settings.temperature_jump * max(now.previous_temperature, now.target_temperature or 0.0, COLDEST)
    if temperature <= limit:
        return None
    return now.failure("temperature_jump", atoms=_hottest(now.atoms), value=temperature, limit=limit, unit="K")


def check_distances(now: Snapshot, settings: FailureSettings) -> Failure | None:
    """The closest pair, measured in sums of covalent radii."""
    fraction = settings.min_distance_fraction
    if fraction is None or not np.isfinite(now.atoms.positions).all():
        return None  # distances of NaN have no meaning; check_finite reports them
    limits = _distance_limits(tuple(sorted(set(now.atoms.numbers.tolist()))), fraction)
    first, second, distance = find_pairs("ijd", now.atoms, limits)
    if len(distance) == 0:
        return None
    numbers = now.atoms.numbers
    allowed = fraction * (covalent_radii[numbers[first]] + covalent_radii[numbers[second]])
    worst = int(np.argmin(distance / allowed))
    pair = sorted((int(first[worst]), int(second[worst])))
    symbols = "-".join(str(now.atoms[index].symbol) for index in pair)
    return now.failure(
        "too_close",
        atoms=tuple(pair),
        value=float(distance[worst]),
        limit=float(allowed[worst]),
        unit="Å",
        detail=symbols,
    )


# In this order: finite numbers first, since every later check needs them.
CHECKS: tuple[Callable[[Snapshot, FailureSettings], Failure | None], ...] = (
    check_finite,
    check_temperature,
    check_temperature_jump,
    check_distances,
)


def check(
    atoms: Atoms,
    settings: FailureSettings,
    *,
    step: int = 0,
    time_fs: float = 0.0,
    target_temperature: float | None = None,
    previous_temperature: float | None = None,
) -> Failure | None:
    """The first failed check of a structure, None where all pass.

    Energy and forces are looked at where a calculator already holds them; nothing is computed. Temperature is looked
    at where the structure has momenta.
    """
    now = Snapshot(atoms, step, time_fs, target_temperature, previous_temperature)
    for one in CHECKS:
        failure = one(now, settings)
        if failure is not None:
            return failure
    return None


def first_failure(
    frames: Iterable[Atoms],
    settings: FailureSettings,
    *,
    frame_interval_fs: float = 1.0,
    target_temperature: float | None = None,
) -> Failure | None:
    """The first failure in a stored trajectory.

    Args:
        frames: structures in order of time. ``time_fs`` and ``target_temperature`` in ``frame.info`` (this package's
            own trajectories have them) go before the two arguments below.
        settings: the checks.
        frame_interval_fs: time between frames in fs.
        target_temperature: thermostat temperature in K; None switches the checks that need it off.
    """
    previous: float | None = None
    for index, atoms in enumerate(frames):
        if index == 0 and not atoms.has("momenta"):
            logger.info("the trajectory has no momenta: its temperature is not checked")
        failure = check(
            atoms,
            settings,
            step=index,
            time_fs=float(atoms.info.get("time_fs", index * frame_interval_fs)),
            target_temperature=atoms.info.get("target_temperature", target_temperature),
            previous_temperature=previous,
        )
        if failure is not None:
            return failure
        previous = float(atoms.get_temperature()) if atoms.has("momenta") else None
    return None


def _known_result(atoms: Atoms, name: str) -> Any:
    """A result that the calculator holds for this very structure; None where it would have to compute."""
    if atoms.calc is None:
        return None
    try:
        return atoms.calc.get_property(name, atoms, allow_calculation=False)
    except PropertyNotImplementedError:
        return None


def _hottest(atoms: Atoms) -> tuple[int, ...]:
    """The atom with the largest kinetic energy."""
    return (int(np.argmax((atoms.get_momenta() ** 2).sum(axis=1) / atoms.get_masses())),)


@lru_cache(maxsize=64)
def _distance_limits(numbers: tuple[int, ...], fraction: float) -> dict[tuple[int, int], float]:
    """Shortest allowed distance in Å of each pair of atomic numbers."""
    pairs = itertools.combinations_with_replacement(numbers, 2)
    return {(a, b): float(fraction * (covalent_radii[a] + covalent_radii[b])) for a, b in pairs}
