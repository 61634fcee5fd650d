"""Does the program behind a potential behave: elements, files, batches, threads, memory?"""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil

from pretrain_mlip.calculators.ase import PretrainedMLIP
from pretrain_mlip.memory import allocated
from pretrain_mlip.potentials.checkpoint import (
    checkpoint_content,
    load_potential,
    potential_from_content,
    save_potential,
)
from pretrain_mlip.potentials.exported import Exported
from pretrain_mlip.validation.verification.subject import (
    FAILED,
    PASSED,
    SKIPPED,
    Finding,
    Subject,
    deviation,
    judged,
    size,
)

THREADS = 4
CALLS, WARM_UP = 1000, 200
GROWTH = 16.0  # MiB in CALLS calls: less than a structure's results for each


def check_elements(subject: Subject) -> Finding:
    """Finite energy and forces for each element and all of them together."""
    for name, atoms in subject.clusters().items():
        try:
            subject.evaluate(atoms)
        except Exception as error:  # noqa: BLE001  # whatever a foreign calculator raises is what was looked for
            return Finding(FAILED, None, f"{name}: {type(error).__name__}: {error}")
    return Finding(PASSED, None, f"{', '.join(subject.elements)}")


def check_threads(subject: Subject) -> Finding:
    """Four threads with a calculator of their own each, made before they start, at the same time."""
    structures = [subject.crystal(), *subject.clusters().values()]
    expected = [subject.evaluate(atoms) for atoms in structures]
    calculators = [subject.make() for _ in range(THREADS)]

    def work(number: int) -> float:
        calculator = calculators[number]
        worst = 0.0
        for turn in range(3 * len(structures)):
            which = (number + turn) % len(structures)
            worst = max(worst, deviation(subject.evaluate(structures[which], calculator), expected[which]))
        return worst

    with ThreadPoolExecutor(THREADS) as pool:
        return judged(max(pool.map(work, range(THREADS))), subject.tolerance, f"{THREADS} threads at once")


def check_memory(subject: Subject) -> Finding:
    """Memory in use after a thousand calls, each on other positions."""
    rng = np.random.default_rng(subject.seed)
    atoms, before = subject.crystal(), (0, 0)
    for call in range(WARM_UP + CALLS):
        if call == WARM_UP:
            before = _memory()
        moved = atoms.copy()
        moved.positions += rng.normal(scale=0.02, size=moved.positions.shape)
        subject.evaluate(moved)
    growth = max(after - start for after, start in zip(_memory(), before, strict=True)) / 2**20
    detail = f"{growth:+.1f} MiB in {CALLS} calls (allowed: {GROWTH:.0f})"
    return Finding(PASSED if growth <= GROWTH else FAILED, growth, detail)


def _memory() -> tuple[int, int]:
    """Bytes of the process, and bytes that were asked for: what leaks may come from memory that was freed before."""
    return psutil.Process().memory_info().rss, allocated()


def check_batches(subject: Subject) -> Finding:
    """Structures together in one call, and one by one."""
    if subject.potential is None:
        return Finding(SKIPPED, None, "not a potential of this package")
    structures = [subject.crystal(), *subject.clusters().values()]
    worst = 0.0
    for atoms, together in zip(structures, subject.labels(structures), strict=True):
        worst = max(worst, deviation(cast("Any", (together.energy, together.forces)), subject.evaluate(atoms)))
    return judged(worst, subject.tolerance, "together and one by one")


def check_file(subject: Subject) -> Finding:
    """Written to a checkpoint and read again: the same bits."""
    if subject.potential is None or isinstance(subject.potential, Exported):
        return Finding(SKIPPED, None, "not a potential with weights")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "potential.pt"
        save_potential(path, subject.potential)
        again = PretrainedMLIP(load_potential(path), device=str(subject.calculator.device))
        worst = 0.0
        for atoms in (subject.crystal(), *subject.clusters().values()):
            energy, forces = subject.evaluate(atoms)
            other, of_other = subject.evaluate(atoms, again)
            worst = max(worst, abs(other - energy), float(np.abs(of_other - forces).max()))
    return Finding(PASSED if worst == 0 else FAILED, worst, f"largest difference {worst:.1e} eV or eV/Å")


def check_single_precision(subject: Subject) -> Finding:
    """What float32 costs against float64."""
    if subject.potential is None or isinstance(subject.potential, Exported):
        return Finding(SKIPPED, None, "not a potential with weights")
    if subject.dtype != "float64":
        return Finding(SKIPPED, None, "verified in float32")
    single = PretrainedMLIP(potential_from_content(checkpoint_content(subject.potential)), dtype="float32")
    of_energy = of_forces = 0.0
    for atoms in (subject.crystal(), *subject.clusters().values()):
        energy, forces = subject.evaluate(atoms)
        other, of_other = subject.evaluate(atoms, single)
        of_energy = max(of_energy, abs(other - energy) / len(atoms))
        of_forces = max(of_forces, float(np.abs(of_other - forces).max()) / size(forces))
    detail = f"against float64: {1e3 * of_energy:.1e} meV/atom, forces {of_forces:.1e} of their size"
    return Finding(PASSED, of_forces, detail)
