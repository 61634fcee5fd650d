"""Energies of vacancies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ase import Atoms

from pretrain_mlip.errors import InputError
from pretrain_mlip.validation.properties.relaxation import relax, repetitions


def vacancies(
    atoms: Atoms, calculator: Any, *, length: float = 10.0, chemical_potentials: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """Energy to take an atom out of each kind of site of a relaxed crystal, at constant volume.

    E = E(without the atom) - E(crystal) + mu, where mu is the energy of the atom in its reservoir: of a crystal of one
    element, that crystal itself.

    Args:
        atoms: the crystal, which is relaxed first.
        calculator: any ASE calculator.
        length: Å, least width of the cell that holds one vacancy.
        chemical_potentials: mu in eV of elements.

    Returns:
        For each kind of site ``element``, ``site`` (number of an atom in ``atoms``), ``multiplicity`` in ``atoms``,
        ``energy`` and ``unrelaxed`` in eV, and ``atoms`` of the cell before the atom was taken out.

    Raises:
        InputError: no crystal, or a compound without the chemical potential of an element.
        ComputationError: a relaxation fails.
    """
    given = dict(chemical_potentials or {})
    elements = sorted(set(atoms.symbols))
    if strange := sorted(set(given) - set(elements)):
        raise InputError(f"vacancies: a chemical potential of {strange[0]}, which the structure does not hold")
    crystal = relax(atoms, calculator, cell=True)
    if len(elements) == 1:
        given.setdefault(elements[0], float(crystal.get_potential_energy()) / len(crystal))
    if missing := [element for element in elements if element not in given]:
        raise InputError(
            f"vacancies: in a compound an atom comes from a reservoir; give the chemical potential of {missing[0]}"
        )
    kinds = _kinds_of_sites(crystal)
    repeated = crystal * repetitions(crystal, length)  # copies of the cell one after the other: numbers are kept
    repeated.calc = calculator
    whole = float(repeated.get_potential_energy())
    return [
        _vacancy(repeated, calculator, site, whole, given[crystal[site].symbol]) | {"multiplicity": multiplicity}
        for site, multiplicity in kinds.items()
    ]


def _vacancy(crystal: Atoms, calculator: Any, site: int, whole: float, potential: float) -> dict[str, Any]:
    rest = crystal.copy()
    del rest[site]
    if not len(rest):
        raise InputError("vacancies: nothing is left; give a larger length")
    rest.calc = calculator
    unrelaxed = float(rest.get_potential_energy()) - whole + potential
    energy = float(relax(rest, calculator, cell=False).get_potential_energy()) - whole + potential
    element = crystal[site].symbol
    return {"element": element, "site": site, "energy": energy, "unrelaxed": unrelaxed, "atoms": len(crystal)}


def _kinds_of_sites(crystal: Atoms) -> dict[int, int]:
    """First atom of each kind that symmetry tells apart -> how many there are."""
    try:
        import spglib
    except ModuleNotFoundError as error:
        raise InputError(
            f"vacancies need {error.name}, which is not installed: pip install 'pretrain-mlip[properties]'"
        ) from None
    cell: Any = (crystal.cell.array, crystal.get_scaled_positions(), crystal.numbers)
    found = spglib.get_symmetry_dataset(cell, symprec=1e-3)  # relaxed to 1e-3 eV/Å
    equivalent = np.arange(len(crystal)) if found is None else found.equivalent_atoms
    first, counts = np.unique(equivalent, return_counts=True)
    return dict(zip(first.tolist(), counts.tolist(), strict=True))
