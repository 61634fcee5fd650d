"""The labels of a structure: what they are, under which names they come, and how they are brought to one form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import full_3x3_to_voigt_6_stress
from pydantic import Field

from pretrain_mlip.errors import InputError
from pretrain_mlip.keys import ENERGY, FORCES, LABELS, STRESS
from pretrain_mlip.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ase import Atoms

REF_NAMES = {ENERGY: ("REF_energy",), FORCES: ("REF_forces",), STRESS: ("REF_stress", "REF_virials")}
REF_VIRIALS = "REF_virials"


class Labels(NamedTuple):
    """Reference values of one structure; None where there is no such label."""

    energy: float | None  # eV
    forces: np.ndarray | None  # (N, 3) eV/Å
    stress: np.ndarray | None  # (6,) eV/Å³, Voigt xx yy zz yz xz xy, positive = tension


class LabelKeys(Settings):
    """Names under which a file keeps its labels, where these are neither REF_* nor ASE's own."""

    energy_key: str | None = Field(
        default=None, description="name of the total energy (eV) in the files, e.g. dft_energy"
    )
    forces_key: str | None = Field(default=None, description="name of the forces (eV/Å) in the files, e.g. dft_forces")
    stress_key: str | None = Field(default=None, description="name of the stress (eV/Å³, ASE's sign) in the files")
    virials_key: str | None = Field(default=None, description="name of the virials (eV, -volume * stress) in the files")

    def named(self) -> dict[str, str]:
        """Field name -> key, for the fields that are set."""
        return {field: key for field, key in self.model_dump().items() if key is not None}

    def candidates(self, label: str) -> Iterator[str]:
        """Keys that may hold a label, the first to be preferred: REF_*, named, ASE's."""
        yield from REF_NAMES[label]
        named = (self.stress_key, self.virials_key) if label == STRESS else (getattr(self, f"{label}_key"),)
        yield from (key for key in named if key is not None)
        yield label


def labels_of(atoms: Atoms) -> Labels:
    """The labels that ``read_structures`` or ``set_labels`` attached: None for each that is absent."""
    results: Mapping[str, Any] = getattr(atoms.calc, "results", {})
    return Labels(*(results.get(label) for label in LABELS))


def set_labels(atoms: Atoms, energy: float | None, forces: np.ndarray | None, stress: np.ndarray | None = None) -> None:
    """Replace the calculator of ``atoms`` by one that knows these labels and nothing else.

    Args:
        atoms: changed in place.
        energy: eV, or None.
        forces: (N, 3) eV/Å, or None.
        stress: (6,) eV/Å³ in ASE's Voigt order, or None; all NaN (a cell that is not three-dimensional) counts as None.
    """
    if stress is not None and np.isnan(stress).all():
        stress = None
    energy = None if energy is None else float(energy)
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces, stress=stress)


def find_labels(atoms: Atoms, keys: LabelKeys, results: Mapping[str, Any], name: str) -> tuple[Labels, dict[str, str]]:
    """Look up the labels of one structure and bring them to the promised shapes.

    Args:
        atoms: where ``info`` and ``arrays`` are searched.
        keys: names that the settings give.
        results: results of the ASE calculator that came with the structure.
        name: of the structure, for messages.

    Returns:
        The labels, and for each that was found the key that it came from.

    Raises:
        InputError: a label is not a number, not finite or of the wrong shape.
    """
    values: dict[str, Any] = dict.fromkeys(LABELS)
    origin: dict[str, str] = {}
    for label in LABELS:
        for key in keys.candidates(label):
            value = _look_up(atoms, results, key)
            if value is not None:
                values[label], origin[label] = value, key
                break
    stress = values[STRESS]
    if stress is not None:
        stress = _stress(atoms, stress, name, origin[STRESS], virial=origin[STRESS] in (REF_VIRIALS, keys.virials_key))
    energy = values[ENERGY]
    if energy is not None:
        energy = float(_numbers(energy, ((), (1,)), name, origin[ENERGY]).reshape(()))
    forces = values[FORCES]
    if forces is not None:
        forces = _numbers(forces, ((len(atoms), 3),), name, origin[FORCES])
    return Labels(energy, forces, stress), origin


def remove_label_keys(atoms: Atoms, keys: LabelKeys) -> None:
    """Delete from ``info`` and ``arrays`` all that is a label, whether it was used or not."""
    for label in LABELS:
        for key in keys.candidates(label):
            atoms.info.pop(key, None)
            atoms.arrays.pop(key, None)


def _look_up(atoms: Atoms, results: Mapping[str, Any], key: str) -> Any:
    # ASE moves "energy", "forces" and the like of an extxyz file to a calculator; load-atoms moves them back.
    for place in (results, atoms.info, atoms.arrays):
        if place.get(key) is not None:
            return place[key]
    return None


def _numbers(value: Any, shapes: tuple[tuple[int, ...], ...], name: str, key: str) -> np.ndarray:
    try:
        numbers = np.array(value, dtype=float)
    except (TypeError, ValueError):
        raise InputError(f"{name}: '{key}' holds {str(value)[:40]!r}, which is not numeric") from None
    if numbers.shape not in shapes:
        wanted = " or ".join(str(shape) for shape in shapes if shape != ()) if shapes[0] else "one number"
        raise InputError(f"{name}: '{key}' has shape {numbers.shape}, expected {wanted}")
    if not np.isfinite(numbers).all():
        raise InputError(f"{name}: '{key}' is not finite (NaN or infinity); remove or recompute this frame")
    return numbers


def _stress(atoms: Atoms, value: Any, name: str, key: str, *, virial: bool) -> np.ndarray | None:
    """Voigt stress (6,) in eV/Å³ from 6, 9 or 3x3 numbers; a full tensor is symmetrised."""
    bulk = atoms.cell.rank == 3
    # "No stress" is written as NaN for molecules by some programs, and by our own predictions.
    if not bulk and np.ndim(value) > 0 and np.asarray(value).dtype.kind == "f" and np.isnan(value).all():
        return None
    numbers = _numbers(value, ((6,), (9,), (3, 3)), name, key)
    if numbers.size == 9:
        full = numbers.reshape(3, 3)
        numbers = full_3x3_to_voigt_6_stress((full + full.T) / 2)
    if not virial:
        return numbers
    if not bulk:
        raise InputError(f"{name}: '{key}' cannot become a stress without a three-dimensional cell; remove it")
    return -numbers / atoms.get_volume()
