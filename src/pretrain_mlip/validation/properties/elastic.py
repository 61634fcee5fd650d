"""Elastic constants, and whether they are those of a stable crystal."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms, units
from ase.optimize import BFGS
from matscipy.elasticity import fit_elastic_constants

from pretrain_mlip.validation.properties.relaxation import FORCES, relax

STRAIN = 2e-3  # between neighbouring points of a line
POINTS = 5


def elastic_constants(atoms: Atoms, calculator: Any) -> dict[str, Any]:
    """Elastic constants of a relaxed crystal at 0 K: stresses against strains, positions relaxed in each.

    Args:
        atoms: the crystal, which is relaxed first.
        calculator: any ASE calculator with stress.

    Returns:
        ``constants`` (6, 6) in GPa, in the order xx, yy, zz, yz, xz, xy of the axes of the structure, and their
        ``errors`` from the straight lines through the stresses; ``bulk_modulus`` and ``shear_modulus`` in GPa, each
        ``voigt``, ``reuss`` and ``hill`` (Hill, Proc. Phys. Soc. A 65, 349 (1952)); ``eigenvalues`` in GPa, and
        ``stable``, whether all are positive (Born's condition; Mouhat and Coudert, Phys. Rev. B 90, 224104 (2014)).

    Raises:
        InputError: no crystal.
        ComputationError: the relaxation fails.
    """
    crystal = relax(atoms, calculator, cell=True)
    crystal.calc = calculator
    constants, errors = fit_elastic_constants(
        crystal,
        symmetry="triclinic",
        N_steps=POINTS,
        delta=STRAIN,
        optimizer=BFGS,
        verbose=False,
        graphics=False,
        fmax=FORCES,
    )
    constants, errors = np.asarray(constants) / units.GPa, np.asarray(errors) / units.GPa
    constants = 0.5 * (constants + constants.T)
    eigenvalues = np.linalg.eigvalsh(_mandel(constants))
    return {
        "constants": constants.tolist(),
        "errors": errors.tolist(),
        **_moduli(constants),
        "eigenvalues": eigenvalues.tolist(),
        "stable": bool(eigenvalues[0] > 0),
    }


def _mandel(constants: np.ndarray) -> np.ndarray:
    """In a basis of strains in which eigenvalues do not depend on the axes."""
    factors = np.sqrt([1, 1, 1, 2, 2, 2])
    return constants * np.outer(factors, factors)


def _moduli(c: np.ndarray) -> dict[str, dict[str, float]]:
    s = np.linalg.inv(c)
    (c_diagonal, c_beside, c_shear), (s_diagonal, s_beside, s_shear) = (_sums(matrix) for matrix in (c, s))
    voigt = (c_diagonal + 2 * c_beside) / 9, (c_diagonal - c_beside + 3 * c_shear) / 15
    reuss = 1 / (s_diagonal + 2 * s_beside), 15 / (4 * (s_diagonal - s_beside) + 3 * s_shear)
    names = ("bulk_modulus", "shear_modulus")
    return {
        name: {"voigt": float(v), "reuss": float(r), "hill": float((v + r) / 2)}
        for name, v, r in zip(names, voigt, reuss, strict=True)
    }


def _sums(matrix: np.ndarray) -> tuple[float, float, float]:
    """Of the three normal elements, the three beside them, and the three of shear."""
    diagonal = float(np.trace(matrix[:3, :3]))
    return diagonal, (float(matrix[:3, :3].sum()) - diagonal) / 2, float(np.trace(matrix[3:, 3:]))
