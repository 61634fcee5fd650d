"""Where a calculator comes from: a file of ours, or a function of anyone's that makes an ASE calculator."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase.data import atomic_numbers

from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.files import sha256

if TYPE_CHECKING:
    import os

    from ase import Atoms


@dataclass(frozen=True)
class Source:
    """A potential by its name, and how to make calculators of it.

    Attributes:
        name: for tables and files.
        make: a calculator, another one at each call; can be pickled, so that processes make their own.
        elements: symbols that it supports; empty where nobody said.
        place: the file, or the name of the function.
    """

    name: str
    make: Callable[[], Any]
    elements: tuple[str, ...]
    place: str

    @property
    def path(self) -> Path | None:
        """The file, where it is one."""
        path = Path(self.place)
        return path if path.is_file() else None

    @property
    def identity(self) -> str:
        """What tells it from others: the SHA-256 of the file, or the name of the function."""
        return self.place if self.path is None else sha256(self.path)

    def check(self, frames: Sequence[Atoms], origin: str) -> None:
        """Refuse structures that it cannot compute, before anything long begins.

        A function does not say what its calculator supports, so that it is tried on structures with every element.

        Args:
            frames: the structures.
            origin: where they come from, for messages.

        Raises:
            InputError: an element is not supported, or the calculator raises.
        """
        held = {symbol for atoms in frames for symbol in atoms.symbols}
        if self.elements and (strange := sorted(held - set(self.elements))):
            raise InputError(f"{origin}: holds {', '.join(strange)}; {self.name} is for {', '.join(self.elements)}")
        tried: set[str] = set()
        for atoms in frames if self.path is None else ():
            if set(atoms.symbols) - tried:
                tried |= set(atoms.symbols)
                self._try(atoms, origin)

    def _try(self, atoms: Atoms, origin: str) -> None:
        copy = atoms.copy()
        copy.calc = self.make()
        try:
            copy.get_potential_energy()
        except (ArithmeticError, ComputationError):  # a failure of the potential, which is a finding
            return
        except Exception as error:
            raise InputError(
                f"{origin}: {self.name} cannot compute {atoms.get_chemical_formula()}: {type(error).__name__}: {error}"
            ) from error


def source_of_file(path: str | os.PathLike[str], elements: Sequence[str] = (), **options: Any) -> Source:
    """A file that ``PretrainedMLIP.load`` takes, with its options.

    Args:
        path: the file; it is read at once, to see that it can be used.
        elements: those that matter; all that it supports where none is named.
        options: of ``PretrainedMLIP.load``.

    Raises:
        InputError: the file cannot be used, or does not support an element.
    """
    from pretrain_mlip.calculators.ase import PretrainedMLIP

    make = functools.partial(PretrainedMLIP.load, path, **options)
    known = make().potential.elements
    if strange := [symbol for symbol in elements if symbol not in known]:
        raise InputError(f"{path} does not support the element {strange[0]}; it knows {', '.join(known)}")
    return Source(name_of_file(path), make, tuple(elements or known), str(path))


def source_of_function(name: str, elements: Sequence[str] = ()) -> Source:
    """A function without arguments that returns an ASE calculator.

    Args:
        name: ``module:function``, of a module that is installed or in the current folder, or ``path/file.py:function``.
        elements: symbols that the calculator supports, where they matter.

    Raises:
        InputError: there is no such module or function, it fails, or what it returns is no calculator.
    """
    if strange := [symbol for symbol in elements if symbol not in atomic_numbers]:
        raise InputError(f"calculator {name}: unknown element '{strange[0]}'")
    make = functools.partial(_calculator, name)
    make()
    return Source(name.rpartition(":")[2] or name, make, tuple(elements), name)


def name_of_file(path: str | os.PathLike[str]) -> str:
    """A short name of a potential: of the folder for checkpoints of a run, else of the file."""
    path = Path(path)
    return path.parent.name if path.name in ("best.pt", "last.pt") and path.parent.name else path.stem


def _calculator(name: str) -> Any:
    place, colon, attribute = name.rpartition(":")
    if not (colon and place and attribute):
        raise InputError(f"calculator '{name}': expected module:function or file.py:function")
    module = _module_of_file(Path(place), name) if place.endswith(".py") else _module(place, name)
    function = functools.reduce(lambda found, part: getattr(found, part, None), attribute.split("."), module)
    if not callable(function):
        raise InputError(f"calculator {name}: {place} has no function '{attribute}'")
    try:
        calculator = function()
    except Exception as error:
        raise InputError(f"calculator {name}: {type(error).__name__}: {error}") from error
    if not hasattr(calculator, "get_potential_energy") or not hasattr(calculator, "get_forces"):
        raise InputError(f"calculator {name}: the function returned {type(calculator).__name__}, not an ASE calculator")
    return calculator


def _module(place: str, name: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # what is installed comes first
    try:
        return importlib.import_module(place)
    except Exception as error:
        raise InputError(f"calculator {name}: cannot import {place}: {type(error).__name__}: {error}") from error


def _module_of_file(path: Path, name: str) -> Any:
    """The file as a module, run once in a process; it keeps clear of modules that are called like the file."""
    if not path.is_file():
        raise InputError(f"calculator {name}: there is no file {path}")
    known = f"_calculators_of_{path.resolve()}"
    if known in sys.modules:
        return sys.modules[known]
    found = importlib.util.spec_from_file_location(known, path)
    if found is None or found.loader is None:
        raise InputError(f"calculator {name}: {path} cannot be imported")
    module = sys.modules[known] = importlib.util.module_from_spec(found)  # dataclasses look for their module there
    try:
        found.loader.exec_module(module)
    except Exception as error:
        del sys.modules[known]
        raise InputError(f"calculator {name}: cannot import {path}: {type(error).__name__}: {error}") from error
    return module
