"""What is verified, the structures that it is tried on, and how a check ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers, covalent_radii

from pretrain_mlip.calculators.ase import PretrainedMLIP
from pretrain_mlip.calculators.batched import predict
from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.structures.io import Labels

if TYPE_CHECKING:
    from pretrain_mlip.potentials.base import Potential

# OpenKIM's grades: highest score log10(error / eps) for each letter, eps of float64; above the last one it is F.
# ``vc_letter_grade_machine_precision`` of its helper routines for verification checks (E. B. Tadmor)
LETTERS = {"A": 7.5, "B": 10.0, "C": 12.5, "D": 15.0}
PASSED, FAILED, SKIPPED = "P", "F", "-"
# Rounding of sums in another order, relative to the size of forces: what symmetries may differ by
ROUNDING = {"float64": 1e-9, "float32": 1e-3}


@dataclass(frozen=True)
class Finding:
    """How a check ends.

    Attributes:
        grade: "A" to "D" or "F" where the error is graded, else "P" (passed), "F" (failed) or "-" (does not apply).
        error: the number behind the grade, None where there is none or it is not finite.
        detail: a sentence for people.
    """

    grade: str
    error: float | None
    detail: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def graded(error: float, detail: str) -> Finding:
    """A letter for a relative error; what is not finite is F."""
    if not math.isfinite(error):
        return Finding(FAILED, None, f"not finite, {detail}")
    eps = np.finfo(float).eps
    score = math.log10(max(error, eps) / eps)
    grade = next((letter for letter, highest in LETTERS.items() if score <= highest), FAILED)
    return Finding(grade, float(error), detail)


def judged(error: float, allowed: float, detail: str) -> Finding:
    """Passed where the error is at most what is allowed; what is not finite has failed."""
    finite = math.isfinite(error)
    grade = PASSED if finite and error <= allowed else FAILED
    return Finding(grade, float(error) if finite else None, f"{detail} (allowed: {allowed:.0e})")


def largest(errors: Mapping[str, float]) -> tuple[float, str]:
    """The largest error and its name; one that is not a number is larger than all."""
    name = max(errors, key=lambda name: math.inf if math.isnan(errors[name]) else errors[name])
    return errors[name], name


@dataclass
class Subject:
    """A potential under examination.

    Attributes:
        make: makes an ASE calculator; each call another one.
        elements: symbols that it is said to support.
        dtype: "float64" or "float32", which its results are precise to.
        seed: of the structures.
        structure: the user's own, tried beside those that are made up.
    """

    make: Callable[[], Any]
    elements: Sequence[str]
    dtype: str = "float64"
    seed: int = 0
    structure: Atoms | None = None
    tolerance: float = field(init=False)

    def __post_init__(self) -> None:
        if not self.elements:
            raise InputError("verify: name the elements that the potential supports")
        if strange := [symbol for symbol in self.elements if symbol not in atomic_numbers]:
            raise InputError(f"verify: unknown element '{strange[0]}'")
        if self.dtype not in ROUNDING:
            raise InputError(f"verify: dtype '{self.dtype}': expected one of {', '.join(ROUNDING)}")
        self.tolerance = ROUNDING[self.dtype]

    @cached_property
    def calculator(self) -> Any:
        return self.make()

    @property
    def potential(self) -> Potential | None:
        """What our calculators have; None of others."""
        return self.calculator.potential if isinstance(self.calculator, PretrainedMLIP) else None

    def energy(self, atoms: Atoms) -> float:
        """Energy in eV of a copy."""
        return self.evaluate(atoms)[0]

    def evaluate(self, atoms: Atoms, calculator: Any = None) -> tuple[float, np.ndarray]:
        """Energy (eV) and forces (N, 3) in eV/Å of a copy.

        Raises:
            ComputationError: one of them is not finite.
        """
        copy = atoms.copy()
        copy.calc = calculator or self.calculator
        energy, forces = float(copy.get_potential_energy()), np.array(copy.get_forces(), dtype=float)
        if not (math.isfinite(energy) and np.isfinite(forces).all()):
            raise ComputationError(f"energy or forces of {copy.get_chemical_formula()} are not finite")
        return energy, forces

    def labels(self, structures: Sequence[Atoms]) -> list[Labels]:
        """Energies and forces of many structures, whatever they are."""
        if self.potential is not None:
            return predict(self.potential, structures, device=str(self.calculator.device))
        found = []
        for atoms in structures:
            copy = atoms.copy()
            copy.calc = self.calculator
            found.append(Labels(float(copy.get_potential_energy()), np.array(copy.get_forces(), dtype=float), None))
        return found

    def contact(self, pair: str) -> float:
        """Sum of the covalent radii in Å of a pair such as "O-Si"."""
        return float(sum(covalent_radii[atomic_numbers[symbol]] for symbol in pair.split("-")))

    def clusters(self) -> dict[str, Atoms]:
        """Distorted pieces of fcc crystals without a cell: of each element, and of all mixed."""
        made = {symbol: self._distorted([symbol], periodic=False) for symbol in self.elements}
        if len(self.elements) > 1:
            made["mixed"] = self._distorted(self.elements, periodic=False)
        return made

    def crystal(self) -> Atoms:
        """A distorted crystal of all elements in a triclinic cell, which may be smaller than the cutoff."""
        return self._distorted(self.elements, periodic=True)

    def crystals(self) -> dict[str, Atoms]:
        """``crystal``, and the structure of the user where it is periodic in three directions."""
        return {"crystal": self.crystal()} | {name: atoms for name, atoms in self._given().items() if atoms.pbc.all()}

    def structures(self) -> dict[str, Atoms]:
        """All there are: ``clusters``, ``crystal``, and the structure of the user, whatever it is."""
        return self.clusters() | {"crystal": self.crystal()} | self._given()

    def _given(self) -> dict[str, Atoms]:
        return {} if self.structure is None else {"given": self.structure}

    def _distorted(self, symbols: Sequence[str], *, periodic: bool) -> Atoms:
        """About as far apart as in solids, each atom moved by a twelfth of that."""
        rng = np.random.default_rng([self.seed, *(atomic_numbers[symbol] for symbol in symbols)])
        numbers = np.array([atomic_numbers[symbol] for symbol in symbols])
        distance = 2.3 * covalent_radii[numbers].mean()
        atoms = bulk("X", "fcc", a=distance * math.sqrt(2), cubic=True) * (2, 2, 1 if periodic else 2)
        atoms.numbers = rng.permutation(numbers[np.arange(len(atoms)) % len(numbers)])
        if periodic:
            shear = np.array([[1.0, 0.0, 0.0], [0.1, 1.05, 0.0], [-0.08, 0.13, 0.97]])
            atoms.set_cell(atoms.cell.array @ shear, scale_atoms=True)
        else:
            atoms.set_cell(None)
            atoms.pbc = False
        atoms.positions += rng.normal(scale=distance / 12, size=atoms.positions.shape)
        return atoms


def size(forces: np.ndarray) -> float:
    """Root mean square of forces, or 1 meV/Å where there are none: what errors are relative to."""
    return max(float(np.sqrt(np.mean(np.square(forces)))) if forces.size else 0.0, 1e-3)


def deviation(found: tuple[float, np.ndarray], right: tuple[float, np.ndarray]) -> float:
    """Largest difference of energies per atom and of forces, relative to the size of the forces (eV as eV/Å).

    Infinite where one is not finite.
    """
    of_energy = abs(found[0] - right[0]) / max(len(right[1]), 1)
    of_forces = float(np.abs(found[1] - right[1]).max()) if right[1].size else 0.0
    if not (math.isfinite(of_energy) and math.isfinite(of_forces)):
        return math.inf
    return max(of_energy, of_forces) / size(right[1])
