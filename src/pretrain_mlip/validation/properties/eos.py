"""Equation of state: energy against volume, and the bulk modulus."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms, units
from ase.eos import EquationOfState

from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.validation.properties.relaxation import check_crystal, relax


def equation_of_state(
    atoms: Atoms, calculator: Any, *, span: float = 0.1, points: int = 11, relaxed: bool = True
) -> dict[str, Any]:
    """Energies of a crystal at volumes about its equilibrium, and Birch and Murnaghan's equation through them.

    Args:
        atoms: the crystal.
        calculator: any ASE calculator.
        span: largest change of the volume, as a share of it.
        points: number of volumes.
        relaxed: relax the crystal first, and positions at each volume (the shape of the cell is kept); else the
            structure is only scaled.

    Returns:
        ``volumes`` in Å³/atom and ``energies`` in eV/atom; of the fit ``volume``, ``energy``, ``bulk_modulus`` in GPa,
        ``bulk_modulus_derivative`` and the root mean square ``residual`` in meV/atom; ``single_minimum``, whether
        energies fall to one minimum and rise from there.

    Raises:
        InputError: settings that make no sense, or no crystal.
        ComputationError: a relaxation fails, or there is no minimum among the volumes.
    """
    if not 0 < span < 1 or points < 5:
        raise InputError(f"equation of state: span {span:g} with {points} points; expected 0 to 1, and 5 or more")
    check_crystal(atoms)
    start = relax(atoms, calculator, cell=True) if relaxed else atoms
    volumes, energies = [], []
    for factor in np.linspace(1 - span, 1 + span, points):
        scaled = start.copy()
        scaled.set_cell(start.cell.array * np.cbrt(factor), scale_atoms=True)
        scaled = relax(scaled, calculator, cell=False) if relaxed else scaled
        scaled.calc = calculator
        volumes.append(float(scaled.cell.volume) / len(scaled))
        energies.append(float(scaled.get_potential_energy()) / len(scaled))
    turns = np.flatnonzero(np.diff(np.sign(np.diff(energies))))
    lowest = int(np.argmin(energies))
    if lowest in (0, points - 1):
        raise ComputationError(
            f"equation of state: energies have no minimum between {volumes[0]:.3f} and {volumes[-1]:.3f} Å³/atom"
        )
    equation = EquationOfState(volumes, energies, eos="birchmurnaghan")
    volume, energy, modulus = equation.fit(warn=False)
    fitted = equation.func(np.array(volumes), *equation.eos_parameters)
    return {
        "volumes": volumes,
        "energies": energies,
        "volume": float(volume),
        "energy": float(energy),
        "bulk_modulus": float(modulus / units.GPa),
        "bulk_modulus_derivative": float(equation.eos_parameters[2]),
        "residual": float(1000 * np.sqrt(np.mean((fitted - energies) ** 2))),
        "single_minimum": bool(len(turns) == 1),
    }
