"""One small function per check: has this structure failed? ``detection`` makes them of a run or a trajectory."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.calculators.calculator import PropertyNotImplementedError
from ase.data import covalent_radii
from ase.geometry import find_mic

from pretrain_mlip.dynamics.failure import Failure, FailureSettings
from pretrain_mlip.structures.neighbors import find_pairs

if TYPE_CHECKING:
    from collections.abc import Callable

    from ase import Atoms

COLDEST = 30.0  # K, what a jump is measured from at least: a run from rest may release the strain of its start
MAX_LISTED_ATOMS = 20  # an exploded box would otherwise list every atom in every message
BOND = 1.2  # times the sum of covalent radii: what counts as bonded at the start
NEAR = 1.25  # times that sum: few atoms have nothing so near, and the list is short


@dataclass(frozen=True)
class Start:
    """What a run is compared with: how it began.

    Attributes:
        energy: potential energy in eV/atom; None where nobody has computed it.
        total_energy: with the kinetic energy, eV/atom; None also where the structure has no momenta.
        volume: of the cell in Å³.
        isolated: atoms without a neighbour.
        bonds: pairs of atoms (2, bonds).
        lengths: of these in Å.
    """

    energy: float | None
    total_energy: float | None
    volume: float
    isolated: frozenset[int]
    bonds: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of(cls, atoms: Atoms, settings: FailureSettings) -> Start:
        sound = _has_distances(atoms)  # if not, the run fails at its first look
        isolated = _isolated(atoms, settings.isolation, _near(atoms)[0]) if settings.isolation and sound else []
        energy = _energy(atoms)
        bonds = np.zeros((2, 0), dtype=int)
        if settings.bond_deviation is not None and sound:
            bonds = np.stack(find_pairs("ij", atoms, _distance_limits(_elements(atoms), BOND)))
            bonds = bonds[:, bonds[0] < bonds[1]]
        return cls(
            energy,
            _total_energy(atoms, energy),
            float(atoms.cell.volume),
            frozenset(isolated),
            bonds,
            _lengths(atoms, bonds),
        )


@dataclass(frozen=True)
class Snapshot:
    """All that a check may look at: a structure at a moment of a run."""

    atoms: Atoms
    step: int
    time_fs: float
    target_temperature: float | None  # K, None where no thermostat acts
    previous_temperature: float | None  # K at the check before
    start: Start

    @property
    def temperature(self) -> float | None:
        """Kinetic temperature in K; None where the structure carries no momenta."""
        return float(self.atoms.get_temperature()) if self.atoms.has("momenta") else None

    @cached_property
    def forces(self) -> np.ndarray | None:
        """Forces (atoms, 3) in eV/Å; None where nobody has computed them."""
        return _known_result(self.atoms, "forces")

    @cached_property
    def energy(self) -> float | None:
        """Potential energy in eV/atom; None where nobody has computed it."""
        return _energy(self.atoms)

    @cached_property
    def near(self) -> tuple[np.ndarray, ...] | None:
        """First atoms, second atoms and distances (Å) of pairs; None where distances have no meaning."""
        return _near(self.atoms) if _has_distances(self.atoms) else None

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
        "forces": now.forces,
        "energy": now.energy,
        "cell": now.atoms.cell.array.ravel(),
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
    if fraction is None or now.near is None or not len(now.near[0]):
        return None
    first, second, distance = now.near
    radii = covalent_radii[now.atoms.numbers]
    allowed = fraction * (radii[first] + radii[second])
    worst = int(np.argmin(distance / allowed))
    if distance[worst] >= allowed[worst]:
        return None
    pair = sorted((int(first[worst]), int(second[worst])))
    return now.failure(
        "too_close",
        atoms=tuple(pair),
        value=float(distance[worst]),
        limit=float(allowed[worst]),
        unit="Å",
        detail=_symbols(now.atoms, pair),
    )


def check_forces(now: Snapshot, settings: FailureSettings) -> Failure | None:
    """The largest force on an atom."""
    if settings.max_force is None or now.forces is None:
        return None
    sizes = np.linalg.norm(now.forces, axis=1)
    worst = int(np.argmax(sizes))
    if not sizes[worst] > settings.max_force:
        return None
    return now.failure(
        "force_too_large",
        atoms=(worst,),
        value=float(sizes[worst]),
        limit=settings.max_force,
        unit="eV/Å",
        detail=_symbols(now.atoms, [worst]),
    )


def check_energy(now: Snapshot, settings: FailureSettings) -> Failure | None:
    """Potential energy outside of what was met in training, or far from that of the start."""
    energy, start = now.energy, now.start.energy
    if energy is None or start is None:
        return None
    lowest = highest = start
    below, name = settings.energy_fall, "that of the start"
    if settings.energy_range is not None:
        zero = sum(settings.reference_energies.get(symbol, 0.0) for symbol in now.atoms.symbols) / len(now.atoms)
        lowest, top = (zero + bound for bound in settings.energy_range)
        highest, below, name = max(start, top), settings.energy_margin, "the lowest in training"
    if below is not None and energy < lowest - below:
        return now.failure(
            "energy_too_low",
            value=energy,
            limit=lowest - below,
            unit="eV/atom",
            detail=f"{lowest - energy:.3g} below {name}",
        )
    if settings.energy_rise is not None and energy > highest + settings.energy_rise:
        return now.failure(
            "energy_too_high",
            value=energy,
            limit=highest + settings.energy_rise,
            unit="eV/atom",
            detail=f"{energy - start:.3g} above that of the start",
        )
    return None


def check_drift(now: Snapshot, settings: FailureSettings) -> Failure | None:
    """Total energy of a run in which it is conserved."""
    energy, start = _total_energy(now.atoms, now.energy), now.start.total_energy
    if settings.energy_drift is None or energy is None or start is None:
        return None
    if abs(energy - start) <= settings.energy_drift:
        return None
    return now.failure("energy_drift", value=energy - start, limit=settings.energy_drift, unit="eV/atom")


def check_isolation(now: Snapshot, settings: FailureSettings) -> Failure | None:
    """Atoms that have left all others."""
    if settings.isolation is None or now.near is None:
        return None
    alone = _isolated(now.atoms, settings.isolation, now.near[0])
    left = [atom for atom in alone if atom not in now.start.isolated]
    if not left:
        return None
    return now.failure("isolated", atoms=tuple(left[:MAX_LISTED_ATOMS]), detail=_symbols(now.atoms, left[:1]))


def check_volume(now: Snapshot, settings: FailureSettings) -> Failure | None:
    """Volume of the cell against that of the start."""
    volume, start = float(now.atoms.cell.volume), now.start.volume
    if settings.volume_change is None or start == 0.0 or not np.isfinite(volume):
        return None
    if start / settings.volume_change <= volume <= start * settings.volume_change:
        return None
    limit = start * settings.volume_change if volume > start else start / settings.volume_change
    return now.failure("volume", value=volume, limit=limit, unit="Å³")


def check_bonds(now: Snapshot, settings: FailureSettings) -> Failure | None:
    """Lengths of the bonds of the start."""
    if settings.bond_deviation is None or not len(now.start.lengths) or not _has_distances(now.atoms):
        return None
    changes = np.abs(_lengths(now.atoms, now.start.bonds) - now.start.lengths)
    worst = int(np.argmax(changes))
    if not changes[worst] > settings.bond_deviation:
        return None
    pair = now.start.bonds[:, worst].tolist()
    return now.failure(
        "bond_length",
        atoms=tuple(pair),
        value=float(changes[worst]),
        limit=settings.bond_deviation,
        unit="Å",
        detail=_symbols(now.atoms, pair),
    )


# In this order: finite numbers first, since every later check needs them.
CHECKS: tuple[Callable[[Snapshot, FailureSettings], Failure | None], ...] = (
    check_finite,
    check_temperature,
    check_temperature_jump,
    check_distances,
    check_forces,
    check_energy,
    check_drift,
    check_isolation,
    check_volume,
    check_bonds,
)


def _known_result(atoms: Atoms, name: str) -> Any:
    """A result that the calculator holds for this very structure; None where it would have to compute."""
    if atoms.calc is None:
        return None
    try:
        return atoms.calc.get_property(name, atoms, allow_calculation=False)
    except PropertyNotImplementedError:
        return None


def _energy(atoms: Atoms) -> float | None:
    """Potential energy in eV/atom."""
    energy = _known_result(atoms, "energy")
    return None if energy is None or len(atoms) == 0 else float(energy) / len(atoms)


def _total_energy(atoms: Atoms, energy: float | None) -> float | None:
    """With the potential energy, in eV/atom."""
    if energy is None or not atoms.has("momenta"):
        return None
    return energy + float(atoms.get_kinetic_energy()) / len(atoms)


def _has_distances(atoms: Atoms) -> bool:
    """Distances of NaN have no meaning; check_finite reports them."""
    return bool(np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all())


def _near(atoms: Atoms) -> tuple[np.ndarray, ...]:
    return find_pairs("ijd", atoms, _distance_limits(_elements(atoms), NEAR))


def _isolated(atoms: Atoms, multiple: float, near: np.ndarray) -> list[int]:
    """Atoms without a neighbour closer than a multiple of the sum of covalent radii; ``near`` have one within NEAR."""
    neighbors = np.bincount(near, minlength=len(atoms))
    if multiple < NEAR or not neighbors.all():
        limits = _distance_limits(_elements(atoms), multiple)
        neighbors = np.bincount(find_pairs("i", atoms, limits)[0], minlength=len(atoms))
    return np.flatnonzero(neighbors == 0).tolist()


def _lengths(atoms: Atoms, bonds: np.ndarray) -> np.ndarray:
    """Distances in Å of pairs of atoms, of the nearest images."""
    if bonds.shape[1] == 0:
        return np.zeros(0)
    vectors = atoms.positions[bonds[1]] - atoms.positions[bonds[0]]
    return find_mic(vectors, atoms.cell, atoms.pbc)[1]  # type: ignore[reportArgumentType]  # pbc of each direction


def _hottest(atoms: Atoms) -> tuple[int, ...]:
    """The atom with the largest kinetic energy."""
    return (int(np.argmax((atoms.get_momenta() ** 2).sum(axis=1) / atoms.get_masses())),)


def _symbols(atoms: Atoms, indices: list[int]) -> str:
    return "-".join(str(atoms[index].symbol) for index in indices)


def _elements(atoms: Atoms) -> tuple[int, ...]:
    return tuple(sorted(set(atoms.numbers.tolist())))


@lru_cache(maxsize=64)
def _distance_limits(numbers: tuple[int, ...], fraction: float) -> dict[tuple[int, int], float]:
    """A multiple of the sum of covalent radii in Å of each pair of atomic numbers."""
    pairs = itertools.combinations_with_replacement(numbers, 2)
    return {(a, b): float(fraction * (covalent_radii[a] + covalent_radii[b])) for a, b in pairs}
