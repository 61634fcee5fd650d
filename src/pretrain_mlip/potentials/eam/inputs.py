"""What an EAM can be fitted to."""

from __future__ import annotations

from collections.abc import Sequence

from ase import Atoms
from ase.data import atomic_numbers

from pretrain_mlip.errors import InputError
from pretrain_mlip.keys import CONFIG_TYPE, ISOLATED_ATOM
from pretrain_mlip.structures.io import labels_of


def refuse_unlabelled(frames: Sequence[Atoms]) -> None:
    """InputError unless every structure has an energy and, if it has more than one atom, forces."""
    if not frames:
        raise InputError("the EAM fit got no structures")
    for number, atoms in enumerate(frames):
        found = labels_of(atoms)
        if found.energy is None or (found.forces is None and len(atoms) > 1):
            raise InputError(
                f"the EAM fit needs energy and forces; structure {number} ({atoms.get_chemical_formula()}) lacks them"
            )


def elements_of(frames: Sequence[Atoms]) -> list[str]:
    """Symbols, by atomic number."""
    return sorted({symbol for atoms in frames for symbol in atoms.symbols}, key=atomic_numbers.__getitem__)


def interacting(frames: Sequence[Atoms]) -> list[Atoms]:
    """All but isolated atoms, which have their E0 as energy whatever the functions are."""
    found = [atoms for atoms in frames if atoms.info.get(CONFIG_TYPE) != ISOLATED_ATOM]
    if frames and not found:
        raise InputError("the EAM fit got isolated atoms only; add structures in which atoms interact")
    return found
