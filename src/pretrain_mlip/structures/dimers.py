"""Two free atoms: how near a teacher lets them come, and pairs nearer than any cap would let a crystal show."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import numpy as np
from ase import Atoms

from pretrain_mlip.console import track
from pretrain_mlip.errors import InputError
from pretrain_mlip.keys import CONFIG_TYPE, PARENT, STRUCTURE_ID
from pretrain_mlip.structures.distances import pair_name
from pretrain_mlip.structures.labels import Labels, set_labels
from pretrain_mlip.structures.moves import PairLimits, PerturbationSettings, floor_limits, unit_vector

logger = logging.getLogger(__name__)
Teacher = Callable[[list[Atoms]], list[Labels]]
CHUNK = 256  # structures handed to the teacher at once
SCAN_STEP, SCAN_END = 0.05, 4.0  # Å, distances of the scan
DIMER = "perturbed_dimer"


def ask(teacher: Teacher, frames: list[Atoms], description: str) -> list[Labels]:
    """The teacher's labels, some structures at a time.

    Raises:
        InputError: a structure comes back without energy or forces.
    """
    labels: list[Labels] = []
    for start in track(range(0, len(frames), CHUNK), description):
        labels += teacher(frames[start : start + CHUNK])
    if len(labels) != len(frames) or any(label.energy is None or label.forces is None for label in labels):
        raise InputError("the teacher has to give an energy and forces for every structure")
    return labels


def largest_force(labels: Labels) -> float:
    """Largest force on an atom, eV/Å; NaN where there are none."""
    return float(np.linalg.norm(labels.forces, axis=1).max()) if labels.forces is not None else float("nan")


def pair_limits(frames: list[Atoms], floor: float, teacher: Teacher | None, max_force: float | None) -> PairLimits:
    """Shortest distance per pair of elements: the floor (Å), or where the force in a free dimer exceeds ``max_force``.

    Args:
        frames: structures whose elements make the pairs.
        floor: Å.
        teacher: gives the forces; without it, or without ``max_force``, every limit is the floor.
        max_force: eV/Å.
    """
    limits = floor_limits(frames, floor)
    if teacher is None or max_force is None:
        return limits
    distances = np.arange(floor, SCAN_END, SCAN_STEP)
    dimers = [Atoms(numbers=pair, positions=[[0, 0, 0], [0, 0, r]]) for pair in limits for r in distances]
    forces = [largest_force(label) for label in ask(teacher, dimers, "Scanning dimers")]
    for pair, row in zip(limits, np.reshape(forces, (len(limits), -1)), strict=True):
        beyond = np.flatnonzero(~(row <= max_force))  # NaN counts as beyond
        if len(beyond):
            limits[pair] = float(distances[min(beyond[-1] + 1, len(distances) - 1)])
        logger.debug("perturbation: %s pairs are driven down to %.2f Å", pair_name(*pair), limits[pair])
    return limits


def free_dimers(
    pairs: Iterable[tuple[int, int]], settings: PerturbationSettings, cutoff: float, teacher: Teacher | None
) -> list[Atoms]:
    """``settings.dimers`` pairs of atoms without a cell for every pair of elements, from the floor to the cutoff.

    The range is divided into as many strata of equal ratio, narrow inside the wall where energies change fast, and
    one distance is drawn in each. No cap applies: inside the wall forces are thousands of eV/Å, and that is what is
    to be shown. A dimer depends on the seed, its elements and its number only.

    Args:
        pairs: atomic numbers.
        settings: number, floor distance, seed.
        cutoff: of the teacher, Å.
        teacher: gives the labels; dimers for which one is not finite are left out.

    Raises:
        InputError: the cutoff is inside the floor distance.
    """
    if not settings.dimers:
        return []
    floor = settings.floor_distance
    if not floor < cutoff:
        raise InputError(f"dimers: floor_distance {floor:g} Å is not within the cutoff of {cutoff:g} Å; set dimers=0")
    drawn = []
    for pair in pairs:
        rng = np.random.default_rng([settings.seed, *pair])
        name = f"dimer {pair_name(*pair)}"
        for number in range(settings.dimers):
            distance = floor * (cutoff / floor) ** ((number + rng.random()) / settings.dimers)
            atoms = Atoms(numbers=pair, positions=[np.zeros(3), distance * unit_vector(rng)])
            atoms.info = {CONFIG_TYPE: DIMER, PARENT: name, STRUCTURE_ID: f"{name} {number}", "volume_factor": 1.0}
            drawn.append(atoms)
    if teacher is None:
        return drawn
    kept = []
    for atoms, label in zip(drawn, ask(teacher, drawn, "Labelling dimers"), strict=True):
        if np.isfinite(np.array([largest_force(label), label.energy], dtype=float)).all():
            set_labels(atoms, *label)
            kept.append(atoms)
    return kept
