"""Relaxation that says when it did not end, or ended in a structure that no crystal has."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

from pretrain_mlip.dynamics.detection import Checks
from pretrain_mlip.dynamics.failure import FailureSettings
from pretrain_mlip.errors import ComputationError, InputError

FORCES = 1e-3  # eV/Å, the largest that is left
STEPS = 1000


def relax(atoms: Atoms, calculator: Any, *, cell: bool, keep_symmetry: bool = False, fmax: float = FORCES) -> Atoms:
    """A relaxed copy with this calculator; without the momenta and constraints of the structure.

    Args:
        atoms: the structure.
        calculator: any ASE calculator.
        cell: relax the cell too, to no stress.
        keep_symmetry: keep the space group of the start; needs spglib.
        fmax: largest force that is left, eV/Å.

    Raises:
        InputError: the structure has no atoms, or is not periodic in three directions.
        ComputationError: forces do not become small, or atoms merge, leave or fall on the way.
    """
    check_crystal(atoms)
    copy = Atoms(atoms.symbols, positions=atoms.positions, cell=atoms.cell, pbc=True)
    if keep_symmetry:
        from ase.constraints import FixSymmetry

        copy.set_constraint(FixSymmetry(copy, verbose=False))
    copy.calc = calculator
    copy.get_forces()
    checks = Checks(FailureSettings())
    checks.look(copy)
    optimizer = BFGS(FrechetCellFilter(copy) if cell else copy, logfile=None)  # type: ignore[reportArgumentType]
    converged = optimizer.run(fmax=fmax, steps=STEPS)
    copy.get_forces()
    if failure := checks.look(copy, step=optimizer.nsteps):
        raise ComputationError(f"relaxation: the structure failed: {failure.message()}")
    if not converged:
        left = np.linalg.norm(copy.get_forces(), axis=1).max()
        raise ComputationError(f"relaxation: forces of {left:.2g} eV/Å are left after {STEPS} steps")
    copy.set_constraint()
    return copy


def check_crystal(atoms: Atoms) -> None:
    """Raises InputError where a structure is no crystal."""
    if len(atoms) == 0:
        raise InputError("the structure has no atoms")
    if not atoms.pbc.all() or atoms.cell.rank < 3:
        raise InputError("the structure is not periodic in three directions; give a crystal")


def repetitions(atoms: Atoms, length: float) -> tuple[int, int, int]:
    """How often to repeat each vector of the cell, so that the cell is wider than ``length`` Å in every direction."""
    heights = 1.0 / np.linalg.norm(atoms.cell.reciprocal(), axis=1)
    first, second, third = (int(np.ceil(length / height - 1e-9)) for height in heights)
    return first, second, third
