"""What must not matter: where the origin is, how atoms are numbered, turned, repeated, moved by a period."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.transform import Rotation

from pretrain_mlip.validation.verification.subject import Finding, Subject, deviation, judged, largest

if TYPE_CHECKING:
    from collections.abc import Callable

    from ase import Atoms


def check_periodicity(subject: Subject) -> Finding:
    """Atoms moved by periods, one by one, in all eight combinations of periodic directions."""
    rng = np.random.default_rng(subject.seed)
    errors = {}
    for pbc in itertools.product([False, True], repeat=3):
        atoms = subject.crystal()
        atoms.pbc = pbc
        moved = atoms.copy()
        moved.positions += (rng.integers(-2, 3, size=(len(atoms), 3)) * np.array(pbc)) @ atoms.cell.array
        errors["".join("FT"[direction] for direction in pbc)] = _difference(subject, atoms, moved)
    error, name = largest(errors)
    return judged(error, subject.tolerance, f"moved by whole periods, largest with pbc {name}")


def check_permutation(subject: Subject) -> Finding:
    """Atoms in another order."""
    atoms = subject.crystal()
    order = np.random.default_rng(subject.seed).permutation(len(atoms))
    return judged(
        _difference(subject, atoms, atoms[order], back=lambda forces: forces[np.argsort(order)]),
        subject.tolerance,
        "atoms in another order",
    )


def check_objectivity(subject: Subject) -> Finding:
    """Ten rotations with a translation, of a cluster and of a crystal with its cell: forces turn along."""
    worst = 0.0
    for atoms in (*subject.clusters().values(), subject.crystal()):
        for turn in Rotation.random(10, np.random.default_rng(subject.seed)):
            matrix = turn.as_matrix()
            turned = atoms.copy()
            turned.set_cell(atoms.cell.array @ matrix.T)
            turned.positions = atoms.positions @ matrix.T + [1.7, -0.4, 3.1]
            worst = max(worst, _difference(subject, atoms, turned, back=lambda forces, m=matrix: forces @ m))
    return judged(worst, subject.tolerance, "turned and moved as a whole")


def check_inversion(subject: Subject) -> Finding:
    """The mirror image: the energy stays, forces change their sign."""
    worst = 0.0
    for atoms in (*subject.clusters().values(), subject.crystal()):
        inverted = atoms.copy()
        inverted.set_cell(-atoms.cell.array)
        inverted.positions = -atoms.positions
        worst = max(worst, _difference(subject, atoms, inverted, back=np.negative))
    return judged(worst, subject.tolerance, "inverted at the origin")


def check_extensivity(subject: Subject) -> Finding:
    """Twice the cell has twice the energy and the same forces."""
    worst = 0.0
    for atoms in subject.crystals().values():
        energy, forces = subject.evaluate(atoms)
        for repeats in ((2, 1, 1), (1, 2, 1), (1, 1, 2)):
            worst = max(worst, deviation(subject.evaluate(atoms * repeats), (2 * energy, np.tile(forces, (2, 1)))))
    return judged(worst, subject.tolerance, "a cell repeated twice in each direction")


def _difference(
    subject: Subject, atoms: Atoms, other: Atoms, *, back: Callable[[np.ndarray], np.ndarray] = lambda forces: forces
) -> float:
    """``deviation`` of another structure, whose forces ``back`` returns to the first one."""
    energy, forces = subject.evaluate(other)
    return deviation((energy, back(forces)), subject.evaluate(atoms))
