"""The two moves of the perturbation: everything a little, and a few atoms a lot.

All functions draw from the generator that they are given and from nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations_with_replacement

import numpy as np
from ase import Atoms
from pydantic import Field

from pretrain_mlip.settings import Settings
from pretrain_mlip.structures.distances import closest_distance, pairs_within

REACH = 6.0  # Å, a pair to drive starts within this distance
SHELL = 1.3  # times the shortest distance of its kind: the first shell of neighbours
ATTEMPTS = 12  # per move; the first ATTEMPTS_ALONG_BOND go along the bond, the others anywhere
ATTEMPTS_ALONG_BOND = 4


class PerturbationSettings(Settings):
    """Two-step perturbation: how far, how often, and what is refused."""

    rounds: int = Field(default=3, ge=1, description="rounds; strains and displacements grow with the round")
    copies: int = Field(default=2, ge=1, description="copies per structure and round")
    min_volume: float = Field(default=0.3, gt=0, le=1, description="smallest volume in the last round, as a factor")
    max_volume: float = Field(default=1.5, ge=1, description="largest volume in the last round, as a factor")
    shear: float = Field(default=0.05, ge=0, description="standard deviation of the shear strains in the last round")
    displacement: float = Field(default=0.25, ge=0, description="standard deviation (Å) of displacements, last round")
    displacement_power: float = Field(
        default=2.0, ge=0, description="displacements shrink by (volume factor)^power where a cell is squeezed"
    )
    pair_share: float = Field(default=0.5, ge=0, le=1, description="share of copies in which a few atoms move a lot")
    pair_calm: float = Field(default=0.3, ge=0, le=1, description="strain and displacement of those, as a factor")
    moves: int = Field(default=2, ge=1, description="pairs or small groups that move in each of those copies")
    max_group: int = Field(default=4, ge=2, le=4, description="largest group (atoms) that moves together")
    max_distance: float = Field(default=5.0, gt=0, description="pairs are driven apart up to this distance (Å)")
    floor_distance: float = Field(default=0.5, gt=0, description="no two atoms come closer than this (Å)")
    max_force: float | None = Field(default=150.0, gt=0, description="largest force (eV/Å) on an atom, null for none")
    max_energy_per_atom: float | None = Field(
        default=15.0, gt=0, description="largest energy above the parent (eV/atom), null for none"
    )
    dimers: int = Field(
        default=0,
        ge=0,
        description="samples of every 0.1 Å between two atoms, from floor_distance to the cutoff of the EAM, for every "
        "pair of elements; free dimers, exempt from the caps, give what is missing",
    )
    max_tries: int = Field(default=6, ge=1, description="draws per copy before it is given up")
    seed: int = Field(default=0, ge=0, description="seed; a copy depends on it, its parent, round and number only")


PairLimits = Mapping[tuple[int, int], float]  # atomic numbers (low, high) -> shortest distance to aim at, Å


def floor_limits(frames: list[Atoms], floor: float) -> dict[tuple[int, int], float]:
    """The floor distance for every pair of the elements in the frames."""
    numbers = sorted({int(number) for atoms in frames for number in atoms.numbers})
    return dict.fromkeys(combinations_with_replacement(numbers, 2), floor)


def squeezed(parent: Atoms, factor: float, shear: np.ndarray | None = None) -> Atoms:
    """A bare copy with its periodic directions scaled as for a volume ``factor``, and sheared.

    Args:
        parent: of any periodicity; without any, nothing is strained.
        factor: V / V0 of a bulk cell. The linear scale of each periodic direction is its cube root.
        shear: (3, 3) symmetric traceless strain, added within the periodic directions.
    """
    copy = Atoms(numbers=parent.numbers, positions=parent.positions, cell=parent.cell, pbc=parent.pbc)
    if not parent.pbc.any():
        return copy
    vectors = parent.cell.array[parent.pbc]
    inside = np.linalg.pinv(vectors) @ vectors  # projector on the space of the periodic directions
    strained = factor ** (1 / 3) * (np.eye(3) + (0 if shear is None else shear))
    deformation = inside @ strained @ inside + np.eye(3) - inside
    copy.set_cell(parent.cell.array @ deformation.T)
    copy.positions = parent.positions @ deformation.T
    return copy


def move_everything(
    parent: Atoms, rng: np.random.Generator, strength: float, settings: PerturbationSettings, lowest: float
) -> tuple[Atoms, float]:
    """Step 1: random volume (squeezed and expanded equally often), shear, and Gaussian displacements.

    Args:
        parent: structure to start from.
        rng: source of all random numbers.
        strength: from 0 to 1, scales the logarithm of the volume, the shear and the displacements.
        settings: amplitudes.
        lowest: smallest volume factor that the caps allow for this parent.

    Returns:
        The new structure and its volume factor.
    """
    draw, tensor = rng.uniform(-1, 1), rng.normal(size=(3, 3))
    noise = rng.normal(size=parent.positions.shape)
    smallest = max(settings.min_volume**strength, lowest)
    factor = smallest**-draw if draw < 0 else settings.max_volume ** (strength * draw)
    factor = factor if parent.pbc.any() else 1.0
    shear = (tensor + tensor.T) / 2
    shear -= np.eye(3) * np.trace(shear) / 3
    moved = squeezed(parent, factor, strength * settings.shear * shear)
    # A squeezed bond is stiffer: equal displacements would mean forces beyond any cap.
    amplitude = strength * settings.displacement * min(1.0, factor) ** settings.displacement_power
    if len(parent) > 1:
        moved.positions += amplitude * noise
    return moved, factor


def move_few(
    atoms: Atoms, rng: np.random.Generator, settings: PerturbationSettings, limits: PairLimits
) -> list[tuple[int, int]]:
    """Step 2: drive pairs or small groups to target distances, in place.

    Kinds of pairs are drawn evenly, whatever their number. One atom is the centre; up to three atoms of the other
    element in its first shell go to targets drawn evenly on either side of their present distance, from the limit of
    the pair to ``max_distance``: along the bond where there is room, else in a random direction.

    Returns:
        The kinds (atomic numbers, low and high) of the moves made; a move without room is left out.
    """
    made = []
    for _ in range(settings.moves):
        i, j, vectors, _ = pairs_within(atoms, REACH)
        different = i != j  # an atom and its own image move together
        i, j, vectors = i[different], j[different], vectors[different]
        if not len(i):
            break
        kinds = np.sort(np.stack([atoms.numbers[i], atoms.numbers[j]], axis=1), axis=1)
        kind = rng.choice(np.unique(kinds, axis=0))
        alike = (kinds == kind).all(axis=1)
        if _drive(atoms, rng, settings, limits, (i[alike], j[alike], vectors[alike])):
            made.append((int(kind[0]), int(kind[1])))
    return made


def _drive(
    atoms: Atoms,
    rng: np.random.Generator,
    settings: PerturbationSettings,
    limits: PairLimits,
    pairs: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> bool:
    """One move with pairs of one kind; False, and nothing changed, where no attempt finds room."""
    centres, partners, vectors = (np.concatenate(both) for both in zip(pairs, _reversed(pairs), strict=True))
    distances = np.linalg.norm(vectors, axis=1)
    shell = np.flatnonzero(distances <= SHELL * distances.min())
    before = atoms.positions.copy()
    for attempt in range(ATTEMPTS):
        chosen = rng.choice(shell)
        centre = int(centres[chosen])
        same_element = atoms.numbers[partners] == atoms.numbers[partners[chosen]]
        others = [n for n in shell if centres[n] == centre and same_element[n] and partners[n] != partners[chosen]]
        extra = min(int(rng.integers(0, settings.max_group - 1)), len(others))
        group = {int(partners[n]): n for n in (chosen, *rng.permutation(others).astype(int)[:extra])}
        for partner, n in group.items():
            target = _target(rng, distances[n], _limit(atoms, limits, centre, partner), settings.max_distance)
            direction = vectors[n] / distances[n]
            if attempt >= ATTEMPTS_ALONG_BOND:
                direction = unit_vector(rng)
            shift = target * direction - vectors[n]
            if len(group) == 1:  # both ends of a pair move
                atoms.positions[partner] += shift / 2
                atoms.positions[centre] -= shift / 2
            else:
                atoms.positions[partner] += shift
        if has_room(atoms, limits, np.array([centre, *group])):
            return True
        atoms.positions = before
    return False


def has_room(atoms: Atoms, limits: PairLimits, moved: np.ndarray) -> bool:
    """Whether no pair with one of the ``moved`` atoms is closer than its limit."""
    i, j, vectors, _ = pairs_within(atoms, max(limits.values()))
    concerned = np.isin(i, moved) | np.isin(j, moved)
    distances = np.linalg.norm(vectors[concerned], axis=1)
    allowed = [_limit(atoms, limits, a, b) for a, b in zip(i[concerned], j[concerned], strict=True)]
    # A target at the limit itself may come out shorter by rounding.
    return bool((distances >= np.array(allowed) - 1e-9).all())


def above_floor(atoms: Atoms, floor: float) -> bool:
    """Whether no two atoms are closer than ``floor`` (Å)."""
    return closest_distance(atoms, floor) is None


def _target(rng: np.random.Generator, distance: float, low: float, high: float) -> float:
    if rng.random() < 0.5:
        return rng.uniform(low, max(low, distance))
    return rng.uniform(distance, max(high, distance))


def _limit(atoms: Atoms, limits: PairLimits, first: int, second: int) -> float:
    low, high = sorted((int(atoms.numbers[first]), int(atoms.numbers[second])))
    return limits[low, high]


def _reversed(pairs: tuple[np.ndarray, np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    i, j, vectors = pairs
    return j, i, -vectors


def unit_vector(rng: np.random.Generator) -> np.ndarray:
    """A direction, every one equally likely."""
    vector = rng.normal(size=3)
    return vector / np.linalg.norm(vector)
