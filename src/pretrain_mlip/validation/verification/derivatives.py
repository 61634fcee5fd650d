"""Are forces and stress the derivatives of the energy, in the same units, without a kink?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms, units
from scipy.differentiate import derivative

from pretrain_mlip.validation.dimers import CONTACT, scan_dimers
from pretrain_mlip.validation.verification.subject import (
    FAILED,
    PASSED,
    SKIPPED,
    Finding,
    Subject,
    graded,
    largest,
    size,
)

if TYPE_CHECKING:
    from collections.abc import Callable

COORDINATES = 12  # of each structure, drawn at random; one wrong component of the forces is enough to be seen
STEPS = {"float64": 0.01, "float32": 0.2}  # Å: the first, widest step of Richardson's extrapolation
NOTHING = 1e-9  # eV/Å and eV/Å³: a derivative that is none
VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
# Slopes of what a calculator says against the derivative of its energy, and the mistake that they come from
MISTAKES = {
    "the sign": -1.0,
    "Hartree/Bohr": units.Bohr / units.Hartree,
    "kcal/mol": units.mol / units.kcal,
    "kJ/mol": units.mol / units.kJ,
    "Rydberg/Bohr": units.Bohr / units.Rydberg,
    "GPa": 1 / units.GPa,
    "kbar": 10 / units.GPa,
    "bar": 1 / units.bar,
    "GPa of opposite sign": -1 / units.GPa,
    "kbar of opposite sign": -10 / units.GPa,
}
POINTS, LONGEST = 400, 12.0  # of a dimer curve, Å
SUSPECTS, HALVINGS = 8, 12  # intervals of each curve that are looked at closely, to a few 1e-6 Å
SMALLEST_STEP = 1e-6  # eV and eV/Å


def check_forces(subject: Subject) -> Finding:
    """Forces against Richardson's extrapolation of differences of the energy, in every structure."""
    errors = {}
    for name, atoms in subject.structures().items():
        said, right = _forces(subject, atoms)
        errors[name] = float(np.sqrt(np.mean(np.square(said - right)))) / size(right)
    error, name = largest(errors)
    return graded(error, f"relative to the size of forces, largest for {name}")


def check_stress(subject: Subject) -> Finding:
    """Stress against the derivative of the energy by strain, per volume."""
    errors = {}
    for name, atoms in subject.crystals().items():
        found = _stress(subject, atoms)
        if found is None:
            return Finding(SKIPPED, None, "the calculator has no stress")
        said, right = found
        errors[name] = float(np.linalg.norm(said - right) / max(np.linalg.norm(right), 1e-6))
    error, name = largest(errors)
    return graded(error, f"relative to the size of the stress, largest for {name}")


def check_units(subject: Subject) -> Finding:
    """The slope of forces, and of the stress, against derivatives of the energy: 1 where all are of eV and Å.

    It may be off by a hundredth, or by what the scatter about the line leaves open (a tenth at most): forces that are
    merely inaccurate are another check's.
    """
    compared = {"forces": _forces(subject, subject.crystal()), "stress": _stress(subject, subject.crystal())}
    lines = {
        name: _line(*pair) for name, pair in compared.items() if pair is not None and np.abs(pair[1]).max() > NOTHING
    }
    if not lines:
        return Finding(SKIPPED, None, "the energy does not change with positions")
    slopes = {name: slope for name, (slope, _) in lines.items()}
    worst, _ = largest({name: abs(slope - 1.0) for name, slope in slopes.items()})
    if all(abs(slope - 1.0) < max(0.01, min(5.0 * error, 0.1)) for slope, error in lines.values()):
        return Finding(PASSED, worst, f"energy, {' and '.join(slopes)} are of eV and Å")
    texts = []
    for name, slope in slopes.items():
        likely = next((unit for unit, factor in MISTAKES.items() if abs(slope / factor - 1.0) < 0.01), "")
        texts.append(f"{name} are {slope:.4g} times the derivative of the energy" + (f": {likely}?" if likely else ""))
    return Finding(FAILED, worst if np.isfinite(worst) else None, "; ".join(texts))


def _line(said: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """Slope of a line through the origin, and its standard error."""
    slope = float(said @ right / (right @ right))
    scatter = float(np.sum(np.square(said - slope * right)) / max(len(right) - 1, 1))
    return slope, float(np.sqrt(scatter / (right @ right)))


def check_dimers(subject: Subject) -> Finding:
    """Energy and force of every pair of elements, from contact to where they do not interact: no step in either."""
    worst, where = 0.0, ""
    for pair, curve in scan_dimers(subject.labels, subject.elements, 0.3, LONGEST, POINTS).items():
        r, energy, force = (np.array(curve[key]) for key in ("r", "energy", "force"))
        outside = (r >= CONTACT * subject.contact(pair)) & np.isfinite(energy) & np.isfinite(force)
        r, energy, force = r[outside], energy[outside], force[outside]
        if len(r) < POINTS // 4:
            return Finding(FAILED, None, f"{pair}: no finite energy and force beyond contact")
        least = max(SMALLEST_STEP, 0.1 * subject.tolerance * float(np.abs(force).max()))
        for values, quantity in ((energy, "eV"), (force, "eV/Å")):
            for place in _suspects(values, least):
                left = _halved(subject, pair, (float(r[place]), float(r[place + 1])), of_force=values is force)
                if left > max(least, worst, abs(values[place + 1] - values[place]) / 2**HALVINGS * 50):
                    worst, where = left, f"{left:.1e} {quantity} of {pair} at {r[place]:.2f} Å"
    if where:
        return Finding(FAILED, worst, f"a step of {where}")
    return Finding(PASSED, worst, f"no step in energy or force from contact to {LONGEST:g} Å")


def _suspects(values: np.ndarray, least: float) -> np.ndarray:
    """Where a curve changes much more than beside: first points of the few worst intervals."""
    change = np.abs(np.diff(values))
    beside = np.maximum(np.roll(change, 1), np.roll(change, -1))
    order = np.argsort(-change / (beside + least))[:SUSPECTS]
    return order[change[order] > least]


def _halved(subject: Subject, pair: str, interval: tuple[float, float], *, of_force: bool) -> float:
    """What is left of a change when the interval around it is halved again and again, to the side that changes more."""

    def value(r: float) -> float:
        energy, forces = subject.evaluate(Atoms(pair.split("-"), positions=[[0.0, 0.0, 0.0], [r, 0.0, 0.0]]))
        return float(forces[1, 0]) if of_force else energy

    (low, high), ends = interval, (value(interval[0]), value(interval[1]))
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        found = value(middle)
        if abs(found - ends[0]) > abs(ends[1] - found):
            high, ends = middle, (ends[0], found)
        else:
            low, ends = middle, (found, ends[1])
    return abs(ends[1] - ends[0])


def _forces(subject: Subject, atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
    """Forces of some coordinates as the calculator says, and as its energy says, in eV/Å."""
    forces = subject.evaluate(atoms)[1]
    rng = np.random.default_rng(subject.seed)
    chosen = rng.choice(forces.size, size=min(COORDINATES, forces.size), replace=False)
    right = []
    for index in chosen:
        along = np.zeros(forces.shape)
        along.flat[index] = 1.0
        right.append(-_derivative(subject, lambda x, along=along: _moved(atoms, x * along)))
    return forces.reshape(-1)[chosen], np.array(right)


def _stress(subject: Subject, atoms: Atoms) -> tuple[np.ndarray, np.ndarray] | None:
    """Stress (6,) in Voigt order as the calculator says, and as its energy says, in eV/Å³; None where it has none."""
    copy = atoms.copy()
    copy.calc = subject.calculator
    try:
        said = np.array(copy.get_stress(), dtype=float)
    except NotImplementedError:  # what ASE raises for a property that a calculator lacks
        return None
    # A strain of 1 moves atoms by the length of the cell
    width = float(np.linalg.norm(atoms.cell.array, axis=1).max())
    right = []
    for row, column in VOIGT:
        strain = np.zeros((3, 3))
        strain[row, column] += 0.5
        strain[column, row] += 0.5
        slope = _derivative(subject, lambda x, s=strain: _strained(atoms, x / width * s))
        right.append(slope * width / atoms.cell.volume)
    return said, np.array(right)


def _derivative(subject: Subject, structure: Callable[[float], Atoms]) -> float:
    """Derivative of the energy at 0 by x in Å."""

    def energies(x: Any) -> np.ndarray:
        return np.vectorize(lambda one: subject.energy(structure(float(one))), otypes=[float])(x)

    reached = derivative(energies, 0.0, initial_step=STEPS[subject.dtype], maxiter=4, order=8)
    return float(reached.df)


def _moved(atoms: Atoms, displacement: np.ndarray) -> Atoms:
    copy = atoms.copy()
    copy.positions += displacement
    return copy


def _strained(atoms: Atoms, strain: np.ndarray) -> Atoms:
    copy = atoms.copy()
    copy.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    return copy
