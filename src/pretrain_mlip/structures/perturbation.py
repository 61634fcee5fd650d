"""Two-step perturbation: many strongly distorted copies of a few structures, with an eye on the caps.

What is too far is asked of a teacher, a function from structures to labels. Before the first draw it tells how close
the two atoms of a free dimer may come, for each pair of elements, and how far each parent can be squeezed; so most
draws are within the caps.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from ase import Atoms

from pretrain_mlip.errors import InputError
from pretrain_mlip.keys import CONFIG_TYPE, CONFIG_WEIGHT, ISOLATED_ATOM, PARENT, SPLIT, STRUCTURE_ID
from pretrain_mlip.structures.dimers import Teacher, ask, free_dimers, largest_force, pair_limits
from pretrain_mlip.structures.distances import pair_distance_histograms, pair_name
from pretrain_mlip.structures.io import name_of
from pretrain_mlip.structures.labels import Labels, set_labels
from pretrain_mlip.structures.moves import (
    PairLimits,
    PerturbationSettings,
    above_floor,
    move_everything,
    move_few,
    squeezed,
)

__all__ = ["PerturbationSettings", "Perturbed", "Teacher", "pair_distance_histograms", "perturb"]

logger = logging.getLogger(__name__)
MARGIN = 0.6  # of a cap, for the scans: other atoms add to what a dimer or an ideal squeezed crystal feels
SQUEEZES = 8  # volume factors that are scanned per parent
EASE = 0.9  # strength of a redraw relative to the draw before it


class Perturbed(NamedTuple):
    """Perturbed structures, and how many draws it took: drawn, kept, dropped, rejected_<reason>, moves_<pair>."""

    frames: list[Atoms]
    counts: dict[str, int]


class _Parent(NamedTuple):
    atoms: Atoms
    name: str
    energy: float | None  # of the teacher, eV
    lowest: float  # smallest volume factor


class _Job(NamedTuple):
    parent: int
    round: int
    copy: int


def perturb(
    frames: Sequence[Atoms],
    settings: PerturbationSettings | None = None,
    *,
    teacher: Teacher | None = None,
    cutoff: float = 8.0,
) -> Perturbed:
    """Make ``rounds * copies`` perturbed copies of every structure, and dimers at distances that these lack.

    A copy depends on the seed, its parent's place in the list, round and number, not on what follows in the list.
    Structures that are one free atom are passed over.

    Args:
        frames: parents; they are not changed.
        settings: amplitudes, caps, numbers.
        teacher: labels a list of structures; the force and energy caps are asked of it and its labels are attached.
            Without it only the floor distance counts and copies have no labels.
        cutoff: of the teacher, Å; dimers reach as far.

    Returns:
        Copies with info ``parent``, ``structure_id``, ``config_type`` (perturbed_strain, perturbed_rattle without a
        cell, perturbed_pair after step 2), ``volume_factor``, ``moved_pairs`` (after step 2), and the parent's
        ``split`` and ``config_weight``. After them dimers (perturbed_dimer), which belong to no structure: where
        parents have a split, dimers are for training if any parent is.

    Raises:
        InputError: no structure can be perturbed, the teacher gives no energy or forces, or its cutoff is too short.
    """
    settings = settings or PerturbationSettings()
    aim = None if settings.max_force is None else MARGIN * settings.max_force
    limits = pair_limits(list(frames), settings.floor_distance, teacher, aim)
    parents = _parents(frames, settings, teacher)
    if not parents:
        raise InputError("nothing to perturb: no structure but free atoms")
    counts: Counter[str] = Counter(dict.fromkeys(("drawn", "kept", "dropped", "rejected_distance"), 0))
    kept: dict[_Job, Atoms] = {}
    jobs = [_Job(p, r, c) for p in parents for r in range(settings.rounds) for c in range(settings.copies)]
    for attempt in range(settings.max_tries):
        drawn = [(job, _draw(parents[job.parent], job, attempt, settings, limits)) for job in jobs]
        candidates = {job: atoms for job, atoms in drawn if atoms is not None}
        counts["drawn"] += len(jobs)
        counts["rejected_distance"] += len(jobs) - len(candidates)
        kept |= _judge(candidates, parents, settings, teacher, counts)
        jobs = [job for job in jobs if job not in kept]
        if not jobs:
            break
    counts["kept"], counts["dropped"] = len(kept), len(jobs)
    _warn(counts)
    copies = [kept[job] for job in sorted(kept)]
    counts.update(f"moves_{pair}" for atoms in copies for pair in atoms.info.get("moved_pairs", "").split())
    dimers, lost = free_dimers(limits, copies, settings, cutoff, teacher)
    counts.update(
        {"drawn": len(dimers) + lost, "kept": len(dimers), "dimers": len(dimers), "rejected_not_finite": lost}
    )
    counts["dropped"] += lost
    _assign(dimers, [parent.atoms for parent in parents.values()])
    return Perturbed(copies + dimers, dict(counts))


def _warn(counts: Counter[str]) -> None:
    rejected = counts["drawn"] - counts["kept"]
    if rejected > counts["drawn"] / 2:
        logger.warning(
            "perturbation: %d of %d draws were rejected (%d copies given up); lower displacement or raise the caps",
            rejected,
            counts["drawn"],
            counts["dropped"],
        )


def _assign(dimers: list[Atoms], parents: list[Atoms]) -> None:
    """Give dimers a split where parents have one."""
    splits = [str(atoms.info[SPLIT]) for atoms in parents if SPLIT in atoms.info]
    for atoms in dimers if splits else ():
        atoms.info[SPLIT] = "train" if "train" in splits else splits[0]


def _parents(frames: Sequence[Atoms], settings: PerturbationSettings, teacher: Teacher | None) -> dict[int, _Parent]:
    """Place in the list -> parent, with the limits that the floor and the teacher set on its volume."""
    places = [
        place
        for place, atoms in enumerate(frames)
        if atoms.info.get(CONFIG_TYPE) != ISOLATED_ATOM and (len(atoms) > 1 or atoms.pbc.any())
    ]
    factors = np.geomspace(1.0, settings.min_volume, SQUEEZES)
    scans = {
        place: [squeezed(frames[place], factor) for factor in (factors if frames[place].pbc.any() else factors[:1])]
        for place in places
    }
    everything = [atoms for place in places for atoms in scans[place]]
    answers = iter(ask(teacher, everything, "Squeezing parents") if teacher else ())
    parents = {}
    for place in places:
        labels = [next(answers) for _ in scans[place]] if teacher else None
        energy = labels[0].energy if labels else None
        lowest = 1.0
        for number, (factor, atoms) in enumerate(zip(factors, scans[place], strict=False)):
            too_far = labels is not None and _reason(labels[number], energy, len(atoms), settings, MARGIN)
            if too_far or not above_floor(atoms, settings.floor_distance):
                break
            lowest = float(factor)
        info = frames[place].info
        name = str(info.get(PARENT, info.get(STRUCTURE_ID, name_of(frames[place], place))))
        parents[place] = _Parent(frames[place], name, energy, lowest)
    return parents


def _draw(
    parent: _Parent,
    job: _Job,
    attempt: int,
    settings: PerturbationSettings,
    limits: PairLimits,
) -> Atoms | None:
    """One candidate, or None where two atoms are too close."""
    # The kind of a copy does not depend on the attempt, or the kind that is refused more often would get rarer.
    pairs = np.random.default_rng([settings.seed, *job]).random() < settings.pair_share and len(parent.atoms) > 1
    rng = np.random.default_rng([settings.seed, *job, attempt + 1])
    strength = (job.round + 1) / settings.rounds * EASE**attempt * (settings.pair_calm if pairs else 1.0)
    atoms, factor = move_everything(parent.atoms, rng, strength, settings, parent.lowest)
    kind, moved = "perturbed_strain" if atoms.pbc.any() else "perturbed_rattle", {}
    if pairs:
        made = move_few(atoms, rng, settings, limits)
        if not made:
            return None
        kind, moved = "perturbed_pair", {"moved_pairs": " ".join(pair_name(*pair) for pair in made)}
    if not above_floor(atoms, settings.floor_distance):
        return None
    inherited = {key: parent.atoms.info[key] for key in (SPLIT, CONFIG_WEIGHT) if key in parent.atoms.info}
    own = parent.atoms.info.get(STRUCTURE_ID, parent.name)
    atoms.info = {
        CONFIG_TYPE: kind,
        PARENT: parent.name,
        STRUCTURE_ID: f"{own} round {job.round} copy {job.copy}",
        "volume_factor": float(factor),
        **moved,
        **inherited,
    }
    return atoms


def _judge(
    candidates: dict[_Job, Atoms],
    parents: dict[int, _Parent],
    settings: PerturbationSettings,
    teacher: Teacher | None,
    counts: Counter[str],
) -> dict[_Job, Atoms]:
    """The candidates within the caps, labelled; all of them where there is no teacher."""
    if teacher is None:
        return candidates
    kept = {}
    labels = ask(teacher, list(candidates.values()), "Labelling perturbed structures")
    for (job, atoms), label in zip(candidates.items(), labels, strict=True):
        reason = _reason(label, parents[job.parent].energy, len(atoms), settings)
        if reason:
            counts[f"rejected_{reason}"] += 1
            continue
        set_labels(atoms, *label)
        kept[job] = atoms
    return kept


def _reason(
    labels: Labels, parent_energy: float | None, n_atoms: int, settings: PerturbationSettings, margin: float = 1.0
) -> str | None:
    """Why labels are beyond the caps (times ``margin``), or None."""
    force = largest_force(labels)
    if labels.energy is None or parent_energy is None or not np.isfinite([force, labels.energy, parent_energy]).all():
        return "not_finite"
    if settings.max_force is not None and force > margin * settings.max_force:
        return "force"
    rise = (labels.energy - parent_energy) / n_atoms
    if settings.max_energy_per_atom is not None and rise > margin * settings.max_energy_per_atom:
        return "energy"
    return None
