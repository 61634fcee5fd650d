"""Energy of each element's free atom (E0), or the best substitute that the data allow."""

from __future__ import annotations

import logging
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
from ase.data import atomic_numbers

from pretrain_mlip.errors import InputError
from pretrain_mlip.keys import CONFIG_TYPE, ISOLATED_ATOM
from pretrain_mlip.structures.io import labels_of, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ase import Atoms

logger = logging.getLogger(__name__)

# Compositions that vary by less than this (relative) do not fix an energy: 0.1 eV/atom of scatter would become 10 eV.
RANK_TOLERANCE = 1e-2
MAX_DISAGREEMENT = 1e-3  # eV between two isolated atoms of one element


def fit_reference_energies(frames: Sequence[Atoms], given: Mapping[str, float] | None = None) -> dict[str, float]:
    """Reference energies (eV) for every element in the frames.

    Isolated atoms (config_type IsolatedAtom) come first and values in ``given`` override them. The other elements come
    from a least-squares fit of the energies per atom by compositions. Where the compositions do not determine it (only
    SiO2, say), the solution closest to the mean energy per atom is taken, which gives each atom an equal part, and a
    log line names the undetermined combinations.

    Returns:
        Element symbol -> eV, by atomic number.

    Raises:
        InputError: a frame of config_type IsolatedAtom is none, or an element is in no frame with an energy.
    """
    known = known_reference_energies(frames, given)
    elements = {symbol for atoms in frames for symbol in atoms.symbols}
    unknown = sorted(elements - set(known), key=atomic_numbers.__getitem__)
    if unknown:
        known |= _least_squares(frames, known, unknown)
    return {symbol: known[symbol] for symbol in sorted(known, key=atomic_numbers.__getitem__)}


def known_reference_energies(frames: Sequence[Atoms], given: Mapping[str, float] | None = None) -> dict[str, float]:
    """Reference energies (eV) that need no fit: of isolated atoms among the frames, overridden by those given.

    Raises:
        InputError: a frame of config_type IsolatedAtom is none, or a given energy is of no element or not finite.
    """
    known = _isolated(frames)
    for symbol, energy in (given or {}).items():
        if symbol not in atomic_numbers or not np.isfinite(energy):
            raise InputError(f"reference energy of '{symbol}': a known element and a finite energy in eV are expected")
        known[symbol] = float(energy)
    return known


def _isolated(frames: Sequence[Atoms]) -> dict[str, float]:
    energies: dict[str, list[float]] = defaultdict(list)
    for number, atoms in enumerate(frames):
        if atoms.info.get(CONFIG_TYPE) != ISOLATED_ATOM:
            continue
        if len(atoms) != 1:
            raise InputError(f"{name_of(atoms, number)}: config_type {ISOLATED_ATOM}, but it has {len(atoms)} atoms")
        energy = labels_of(atoms).energy
        if energy is None:
            raise InputError(f"{name_of(atoms, number)}: an isolated atom without an energy; label or remove it")
        energies[str(atoms.symbols)].append(energy)
    for symbol, values in energies.items():
        if max(values) - min(values) > MAX_DISAGREEMENT:
            logger.warning(
                "isolated %s atoms differ by %.3f eV; the lowest energy is used", symbol, max(values) - min(values)
            )
    return {symbol: min(values) for symbol, values in energies.items()}


def _least_squares(frames: Sequence[Atoms], known: Mapping[str, float], unknown: list[str]) -> dict[str, float]:
    rows, rest = [], []
    for atoms in frames:
        energy = labels_of(atoms).energy
        symbols = list(atoms.symbols)
        counts = [symbols.count(symbol) for symbol in unknown]
        if energy is None or not any(counts) or atoms.info.get(CONFIG_TYPE) == ISOLATED_ATOM:
            continue
        rows.append(np.array(counts) / len(atoms))
        rest.append((energy - sum(known.get(symbol, 0.0) for symbol in symbols)) / len(atoms))
    present = np.sum(rows, axis=0) if rows else np.zeros(len(unknown))
    for symbol, amount in zip(unknown, present, strict=True):
        if amount == 0:
            raise InputError(f"no energy to fit the reference energy of {symbol} to; give it, or add labelled frames")
    fractions, target = np.array(rows), np.array(rest)
    # Deviations from the mean are what is kept small; columns are scaled so that a rare element counts as well.
    mean = target.sum() / fractions.sum()
    scale = np.linalg.norm(fractions, axis=0)
    scaled = fractions / scale
    squares, directions = np.linalg.eigh(scaled.T @ scaled)  # columns, by growing weight
    kept = squares > RANK_TOLERANCE**2 * squares[-1]
    amplitudes = directions.T @ scaled.T @ (target - mean * fractions.sum(axis=1))
    deviations = directions[:, kept] @ (amplitudes[kept] / squares[kept]) / scale
    logger.info("reference energies by least squares from %d frames: %s", len(rows), ", ".join(unknown))
    if not kept.all():
        _log_undetermined(unknown, directions[:, ~kept].T / scale)
    return {symbol: float(mean + shift) for symbol, shift in zip(unknown, deviations, strict=True)}


def _log_undetermined(symbols: list[str], directions: np.ndarray) -> None:
    words = []
    for direction in directions / np.abs(directions).max(axis=1, keepdims=True):
        parts = [f"{part:+.2g} {symbol}" for part, symbol in zip(direction, symbols, strict=True) if abs(part) > 1e-3]
        words.append(" ".join(parts))
    logger.info(
        "reference energies: the compositions leave %d combination(s) undetermined, split about the mean: %s",
        len(words),
        "; ".join(words),
    )
