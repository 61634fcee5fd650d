"""Two free atoms: how near a teacher lets them come, and pairs nearer than any cap would let a crystal show."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from ase import Atoms

from pretrain_mlip.console import track
from pretrain_mlip.errors import InputError
from pretrain_mlip.keys import CONFIG_TYPE, CONFIG_WEIGHT, PARENT, STRUCTURE_ID
from pretrain_mlip.structures.distances import bin_edges, distances_by_pair, pair_name
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
    pairs: Iterable[tuple[int, int]],
    copies: Sequence[Atoms],
    settings: PerturbationSettings,
    cutoff: float,
    teacher: Teacher | None,
) -> tuple[list[Atoms], int]:
    """Pairs of atoms without a cell, at the distances that the copies do not show.

    From the floor to the cutoff, every bin of 0.1 Å in which a pair of elements has fewer than ``settings.dimers``
    samples is filled up to that number. No cap applies: inside the wall forces are thousands of eV/Å, and that is what
    is to be shown. Beyond the cap of forces the weight of a dimer falls as one over its force, so that in a loss that
    is linear far out none counts more than one at the cap. A dimer depends on the seed, its elements and its bin only.

    Args:
        pairs: atomic numbers.
        copies: structures whose distances count.
        settings: number, floor distance, cap of forces, seed.
        cutoff: of the teacher, Å.
        teacher: gives the labels.

    Returns:
        The dimers, and how many were left out because a label is not finite.

    Raises:
        InputError: the cutoff is inside the floor distance.
    """
    if not settings.dimers:
        return [], 0
    floor = settings.floor_distance
    if not floor < cutoff:
        raise InputError(f"dimers: floor_distance {floor:g} Å is not within the cutoff of {cutoff:g} Å; set dimers=0")
    edges = bin_edges(floor, cutoff)
    shown = distances_by_pair(copies, cutoff)
    drawn = []
    for pair in pairs:
        counts = np.histogram(shown.get(pair_name(*pair), []), edges)[0]
        drawn += _dimers_of(pair, settings.dimers - counts, edges, settings)
    if teacher is None:
        return drawn, 0
    kept = []
    for atoms, label in zip(drawn, ask(teacher, drawn, "Labelling dimers"), strict=True):
        force = largest_force(label)
        if np.isfinite(np.array([force, label.energy], dtype=float)).all():
            set_labels(atoms, *label)
            if settings.max_force is not None and force > settings.max_force:
                atoms.info[CONFIG_WEIGHT] = settings.max_force / force
            kept.append(atoms)
    return kept, len(drawn) - len(kept)


def _dimers_of(
    pair: tuple[int, int], missing: np.ndarray, edges: np.ndarray, settings: PerturbationSettings
) -> list[Atoms]:
    """Dimers of one pair: in each bin as many as are missing."""
    rng = np.random.default_rng([settings.seed, *pair])
    name = f"dimer {pair_name(*pair)}"
    dimers = []
    for low, high, lacking in zip(edges[:-1], edges[1:], missing, strict=True):
        for number in range(settings.dimers):  # drawn whether lacking or not, so that other bins do not matter
            vector = rng.uniform(low, high) * unit_vector(rng)
            if number < lacking:
                atoms = Atoms(numbers=pair, positions=[np.zeros(3), vector])
                identity = f"{name} {low:.2f} Å {number}"
                atoms.info = {CONFIG_TYPE: DIMER, PARENT: name, STRUCTURE_ID: identity, "volume_factor": 1.0}
                dimers.append(atoms)
    return dimers
