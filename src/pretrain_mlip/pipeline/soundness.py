"""Whether the potentials of a run are sound: verification checks, and phonons of crystals that the user names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ase import Atoms

from pretrain_mlip import console
from pretrain_mlip.calculators.ase import PretrainedMLIP
from pretrain_mlip.config import PhononSettings, RunConfig, VerificationSettings
from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.parallel import Workers
from pretrain_mlip.pipeline.folder import RunFolder
from pretrain_mlip.structures.io import read_structures, write_structures
from pretrain_mlip.validation.properties.phonons import find_phonopy, phonons
from pretrain_mlip.validation.properties.relaxation import check_crystal
from pretrain_mlip.validation.verification.subject import Subject
from pretrain_mlip.validation.verification.verify import CHECKS, OF_THE_PROGRAM, verify

T = TypeVar("T", bound="_Task")
DIGITS = 4  # of THz, and of distances along the path


@dataclass(frozen=True)
class _Task:
    name: str
    make: Callable[[], Any]


@dataclass(frozen=True)
class _Verification(_Task):
    elements: tuple[str, ...]
    checks: list[str]
    seed: int


@dataclass(frozen=True)
class _Phonons(_Task):
    crystal: str
    atoms: Atoms
    settings: PhononSettings


def verification(
    folder: RunFolder,
    names: Sequence[str],
    elements: Sequence[str],
    settings: VerificationSettings,
    config: RunConfig,
    workers: Workers,
) -> dict[str, Any]:
    """Section ``verification``: the checks of every potential, in float64.

    Raises:
        ComputationError: a process died, which says nothing about the potential.
    """
    chosen = [check.name for check in CHECKS if settings.thorough or check.name not in OF_THE_PROGRAM]
    tasks = [
        _Verification(name, _calculator(folder, name, config), tuple(elements), chosen, config.seed) for name in names
    ]
    found = {task.name: result for task, result in _computed(_verify, tasks, workers, "verification")}
    return {name: found[name] for name in names}


def crystals(folder: RunFolder, settings: PhononSettings, elements: Sequence[str]) -> dict[str, Atoms]:
    """The last structure of each file, by the name of the file; kept in the folder, which may go on elsewhere.

    Raises:
        InputError: a file cannot be read, holds other elements or no crystal, or two have one name; phonopy is missing.
    """
    find_phonopy()
    found: dict[str, Atoms] = {}
    for place in settings.structures:
        name = Path(place).stem
        kept = folder.crystal(name)
        atoms = read_structures(place if Path(place).exists() or not kept.exists() else kept, require=())[-1]
        check_crystal(atoms)
        if strange := sorted(set(atoms.symbols) - set(elements)):
            raise InputError(f"phonons.structures: {place}: holds {', '.join(strange)}, which is not in the data")
        if name in found:
            raise InputError(f"phonons.structures: two files are called {name}; rename one")
        found[name] = atoms
    for name, atoms in found.items():
        write_structures(folder.crystal(name), [atoms])
    return found


def phonon_bands(
    folder: RunFolder,
    names: Sequence[str],
    structures: dict[str, Atoms],
    settings: PhononSettings,
    config: RunConfig,
    workers: Workers,
) -> dict[str, Any]:
    """Section ``phonons``: bands of every crystal by every potential, in float64."""
    tasks = [
        _Phonons(name, _calculator(folder, name, config), crystal, atoms, settings)
        for crystal, atoms in structures.items()
        for name in names
    ]
    found = {(task.crystal, task.name): result for task, result in _computed(_bands, tasks, workers, "phonons")}
    return {crystal: {name: found[crystal, name] for name in names} for crystal in structures}


def _calculator(folder: RunFolder, name: str, config: RunConfig) -> Callable[[], Any]:
    return partial(PretrainedMLIP.load, folder.potential(name), device=config.device, dtype="float64")


def _verify(task: _Verification) -> dict[str, Any]:
    return verify(Subject(task.make, task.elements, seed=task.seed), task.checks)


def _bands(task: _Phonons) -> dict[str, Any]:
    settings = task.settings
    try:
        found = phonons(task.atoms, task.make(), length=settings.length, displacement=settings.displacement)
    except ComputationError as error:  # no relaxation, forces that are not finite: a finding
        return {"failed": str(error)}
    bands = [
        {
            "labels": band["labels"],
            "distances": [round(place, DIGITS) for place in band["distances"]],
            "frequencies": [[round(mode, DIGITS) for mode in modes] for modes in band["frequencies"]],
        }
        for band in found["bands"]
    ]
    kept = ("acoustic_at_gamma", "lowest", "imaginary", "space_group")
    return {"bands": bands} | {key: found[key] for key in kept}


def _computed(function: Callable[[T], Any], tasks: Sequence[T], workers: Workers, what: str) -> Iterator[tuple[T, Any]]:
    """Every task with what it gave. What ended one ends all."""
    finished = workers.run(function, tasks) if workers.several else ((task, function(task)) for task in tasks)
    for task, result in console.track(finished, what, total=len(tasks)):
        if isinstance(result, Exception):
            raise ComputationError(f"{what} of {task.name}: {result}") from result
        yield task, result
