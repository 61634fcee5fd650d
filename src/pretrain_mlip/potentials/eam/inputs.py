"""What an EAM can be fitted to."""

from __future__ import annotations

from collections.abc import Sequence

from ase import Atoms
from ase.data import atomic_numbers

from pretrain_mlip.errors import InputError
from pretrain_mlip.keys import CONFIG_TYPE, CONFIG_WEIGHT, ISOLATED_ATOM
from pretrain_mlip.structures.io import labels_of, name_of


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
    return [atoms for atoms in frames if atoms.info.get(CONFIG_TYPE) != ISOLATED_ATOM]


def weighted(frames: Sequence[Atoms]) -> list[Atoms]:
    """Structures that a fit can learn from: all but isolated atoms, and those whose weight is 0.

    Raises:
        InputError: there are none.
    """
    found = interacting(frames)
    if not found:
        raise InputError("the EAM fit got isolated atoms only; add structures in which atoms interact")
    found = [atoms for atoms in found if float(atoms.info.get(CONFIG_WEIGHT, 1.0)) > 0]
    if not found:
        raise InputError("the EAM fit got structures whose config_weight is 0 only")
    return found


def refuse_strange(frames: Sequence[Atoms], elements: Sequence[str], role: str) -> None:
    """InputError where a structure of a role (held out, say) has an element that the training structures lack."""
    for number, atoms in enumerate(frames):
        if strange := sorted(set(atoms.symbols) - set(elements)):
            raise InputError(f"{role} {name_of(atoms, number)}: no training structure has {', '.join(strange)}")
