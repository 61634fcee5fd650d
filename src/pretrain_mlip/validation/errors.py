"""Errors of predictions against reference labels: tables per config_type, and points for parity plots.

Energies in meV/atom, force components in meV/Å, stress components in GPa.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError

from pretrain_mlip import console
from pretrain_mlip.errors import InputError
from pretrain_mlip.keys import CONFIG_TYPE, EV_PER_A3_IN_GPA
from pretrain_mlip.structures.labels import Labels, labels_of

Predictor = Callable[[Sequence[Atoms]], Sequence[Labels]]
ALL = "all"
COLUMNS = {
    "frames": "frames",
    "atoms": "atoms",
    "energy_mae": "energy MAE (meV/atom)",
    "energy_rmse": "energy RMSE (meV/atom)",
    "forces_mae": "force MAE (meV/Å)",
    "forces_rmse": "force RMSE (meV/Å)",
    "forces_rms_reference": "RMS force (meV/Å)",
    "stress_mae": "stress MAE (GPa)",
    "stress_rmse": "stress RMSE (GPa)",
}


def predict_with(calculator: Any, frames: Sequence[Atoms]) -> list[Labels]:
    """Energy, forces and, for three-dimensional cells where the calculator has it, stress of each frame."""
    results = []
    for frame in console.track(frames, "evaluate"):
        atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)
        atoms.calc = calculator
        stress = None
        if atoms.cell.rank == 3 and atoms.pbc.all():
            try:
                stress = np.array(atoms.get_stress())
            except PropertyNotImplementedError:
                stress = None
        results.append(Labels(float(atoms.get_potential_energy()), np.array(atoms.get_forces()), stress))
    return results


def evaluate(
    potential: Any, frames: Sequence[Atoms], by: str = CONFIG_TYPE, points: int = 2000
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Error table and parity points of a potential on labelled frames.

    Args:
        potential: an ASE calculator, or a function from frames to their predicted labels (faster for batched models).
        frames: structures with reference labels.
        by: key of ``frame.info`` whose values become rows.
        points: most points of each kind kept for parity plots.

    Returns:
        ``error_table`` and ``parity``.
    """
    is_calculator = hasattr(potential, "get_potential_energy")
    predicted = predict_with(potential, frames) if is_calculator else potential(frames)
    return error_table(frames, predicted, by), parity(frames, predicted, points)


def error_table(
    reference: Sequence[Atoms], predicted: Sequence[Labels], by: str = CONFIG_TYPE
) -> dict[str, dict[str, Any]]:
    """Errors of each group of frames, and of all together in the row "all", which comes last.

    Args:
        reference: labelled frames.
        predicted: predictions in the same order.
        by: key of ``frame.info`` whose values name the rows; frames without it form the row "(none)".

    Returns:
        Row -> the columns of ``COLUMNS``; a value is None where no frame of the row has both label and prediction.

    Raises:
        InputError: the lengths differ, or there is no frame.
    """
    _check_lengths(reference, predicted)
    groups: dict[str, list[int]] = {}
    for index, atoms in enumerate(reference):
        groups.setdefault(str(atoms.info.get(by, "(none)")), []).append(index)
    groups = dict(sorted(groups.items()))
    groups.pop(ALL, None)  # a config_type of that name would be hidden by the row of all frames
    groups[ALL] = list(range(len(reference)))
    return {
        name: _row([reference[i] for i in members], [predicted[i] for i in members]) for name, members in groups.items()
    }


def parity(reference: Sequence[Atoms], predicted: Sequence[Labels], points: int = 2000) -> dict[str, Any]:
    """Pairs of reference and predicted values, thinned to at most ``points`` of each kind, the same at every call.

    Energies are per atom, in eV, above the best sum of constants per element of the reference energies: without it the
    composition would hide everything else. Forces are components in eV/Å.

    Returns:
        ``energy`` and ``forces``, each {"reference": [...], "predicted": [...]}.
    """
    _check_lengths(reference, predicted)
    labels = [labels_of(atoms) for atoms in reference]
    energies = [
        (index, label.energy, guess.energy)
        for index, (label, guess) in enumerate(zip(labels, predicted, strict=True))
        if label.energy is not None and guess.energy is not None
    ]
    offsets = _composition_energies([reference[i] for i, _, _ in energies], [e for _, e, _ in energies])
    size = np.array([len(reference[i]) for i, _, _ in energies])
    true = (np.array([e for _, e, _ in energies]) - offsets) / size
    guessed = (np.array([e for _, _, e in energies]) - offsets) / size
    forces = [_flat_pair(a.forces, b.forces) for a, b in zip(labels, predicted, strict=True)]
    components = np.concatenate([np.empty((0, 2)), *(pair for pair in forces if pair is not None)])
    return {
        "energy": _thinned(np.column_stack([true, guessed]), points),
        "forces": _thinned(components, points),
    }


def rows_for_display(table: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[list[object]]]:
    """Headings and rows of an error table for ``console.table``; columns without any value are left out."""
    shown = [key for key in COLUMNS if any(row[key] is not None for row in table.values())]
    rows = [[name, *("-" if row[key] is None else row[key] for key in shown)] for name, row in table.items()]
    return ["frames of", *(COLUMNS[key] for key in shown)], rows


def _row(reference: Sequence[Atoms], predicted: Sequence[Labels]) -> dict[str, Any]:
    labels = [labels_of(atoms) for atoms in reference]
    energy = [
        1000.0 * (guess.energy - label.energy) / len(atoms)
        for atoms, label, guess in zip(reference, labels, predicted, strict=True)
        if label.energy is not None and guess.energy is not None
    ]
    forces = _errors((label.forces for label in labels), (guess.forces for guess in predicted), 1000.0)
    stress = _errors((label.stress for label in labels), (guess.stress for guess in predicted), EV_PER_A3_IN_GPA)
    strength = [1000.0 * np.ravel(label.forces) for label in labels if label.forces is not None]
    return {
        "frames": len(reference),
        "atoms": sum(len(atoms) for atoms in reference),
        "energy_mae": _mae(energy),
        "energy_rmse": _rms(energy),
        "forces_mae": _mae(forces),
        "forces_rmse": _rms(forces),
        "forces_rms_reference": _rms(np.concatenate(strength)) if strength else None,
        "stress_mae": _mae(stress),
        "stress_rmse": _rms(stress),
    }


def _errors(reference: Iterable[np.ndarray | None], predicted: Iterable[np.ndarray | None], unit: float) -> np.ndarray:
    pairs = (_flat_pair(a, b) for a, b in zip(reference, predicted, strict=True))
    return np.concatenate([np.empty(0), *(unit * (pair[:, 1] - pair[:, 0]) for pair in pairs if pair is not None)])


def _flat_pair(reference: np.ndarray | None, predicted: np.ndarray | None) -> np.ndarray | None:
    """Columns reference, predicted, without components whose reference is NaN (stress of a flat cell)."""
    if reference is None or predicted is None:
        return None
    pair = np.column_stack([np.ravel(reference), np.ravel(predicted)])
    return pair[~np.isnan(pair[:, 0])]


def _mae(errors: Sequence[float] | np.ndarray) -> float | None:
    return _finite(np.mean(np.abs(errors))) if len(errors) else None


def _rms(errors: Sequence[float] | np.ndarray) -> float | None:
    return _finite(np.sqrt(np.mean(np.square(errors)))) if len(errors) else None


def _finite(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None


def _composition_energies(frames: Sequence[Atoms], energies: Sequence[float]) -> np.ndarray:
    """Least-squares sum of one constant per element, (B,) eV."""
    elements = sorted(set(itertools.chain.from_iterable(atoms.numbers.tolist() for atoms in frames)))
    counts = np.array([[np.sum(atoms.numbers == z) for z in elements] for atoms in frames], dtype=float)
    counts = counts.reshape(len(frames), len(elements))
    constants = np.linalg.lstsq(counts, np.array(energies), rcond=None)[0]
    return counts @ constants


def _thinned(pairs: np.ndarray, points: int) -> dict[str, list[float]]:
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    if len(pairs) > points:
        pairs = pairs[np.sort(np.random.default_rng(0).choice(len(pairs), points, replace=False))]
    columns = ([float(f"{value:.6g}") for value in column] for column in pairs.T)
    return dict(zip(("reference", "predicted"), columns, strict=True))


def _check_lengths(reference: Sequence[Atoms], predicted: Sequence[Labels]) -> None:
    if len(reference) != len(predicted):
        raise InputError(f"errors: {len(predicted)} predictions for {len(reference)} frames")
    if len(reference) == 0:
        raise InputError("errors: no frame given")
