"""The same structure through every way into LAMMPS, beside ASE: energies, forces and stress must be the same."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms

from pretrain_mlip.calculators.ase import PretrainedMLIP
from pretrain_mlip.deploy.exports import in_precision, write_export
from pretrain_mlip.deploy.lammps import doctor
from pretrain_mlip.deploy.lammps.library import import_lammps
from pretrain_mlip.deploy.lammps.mliap import write_mliap
from pretrain_mlip.deploy.lammps.runs import (
    BAR,
    FINNIS_SINCLAIR,
    MLIAP,
    PLUGIN,
    SETFL,
    Found,
    periodic,
    potential_lines,
    single_point,
)
from pretrain_mlip.deploy.lammps.session import LammpsSession
from pretrain_mlip.errors import InputError, PretrainMLIPError
from pretrain_mlip.potentials.base import Potential
from pretrain_mlip.potentials.checkpoint import load_potential
from pretrain_mlip.potentials.eam.embedded_atom import EmbeddedAtom
from pretrain_mlip.potentials.eam.setfl import write_setfl
from pretrain_mlip.potentials.exported import Exported

PLUGIN_TORCHSCRIPT, PLUGIN_PACKAGE = f"{PLUGIN} .ts.pt", f"{PLUGIN} .pt2"


@dataclass(frozen=True)
class Tolerance:
    """Largest differences that rounding explains where forces are of 1 eV/Å or less; more where they are larger.

    Attributes:
        energy: eV/atom.
        forces: eV/Å.
        pressure: bar.
    """

    energy: float
    forces: float
    pressure: float


# Sums of float32 in another order; the pressure of 20 bar is 1e-5 eV/Å³
TOLERANCES = {"float64": Tolerance(1e-8, 1e-7, 1e-3), "float32": Tolerance(1e-5, 1e-4, 20.0)}


@dataclass(frozen=True)
class Comparison:
    """One structure, one way, one number of processes.

    Attributes:
        structure: its name.
        atoms: how many.
        route: the way.
        ranks: processes.
        energy: difference in eV/atom.
        forces: largest difference in eV/Å.
        pressure: largest difference of a component in bar.
        largest: force in eV/Å.
        error: what LAMMPS said where it stopped.
    """

    structure: str
    atoms: int
    route: str
    ranks: int
    energy: float = float("nan")
    forces: float = float("nan")
    pressure: float = float("nan")
    largest: float = float("nan")
    error: str = ""

    def within(self, tolerance: Tolerance) -> bool:
        """Whether all differences are rounding."""
        scale = max(1.0, self.largest)
        found = self.energy, self.forces, self.pressure
        allowed = tolerance.energy, tolerance.forces, tolerance.pressure
        return all(one <= scale * most for one, most in zip(found, allowed, strict=True))


class Parity:
    """A potential, exported for every way that works here.

    Attributes:
        routes: names of the ways that are compared.
        missing: those that do not work here, with what to do.
        tolerance: see ``Tolerance``.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        folder: str | os.PathLike[str],
        *,
        program: Path,
        dtype: str = "float64",
        only: Sequence[str] = (),
    ) -> None:
        """Find out what works and export the potential for it.

        Args:
            path: a checkpoint, eam.json, setfl tables, or an exported file, which goes its own way alone.
            folder: for the exports.
            program: LAMMPS.
            dtype: of networks.
            only: parts of names of ways, others are left out.

        Raises:
            InputError: the potential cannot be read, or no way is left.
        """
        self.program = program
        self.path = Path(path)
        potential = load_potential(path)
        if isinstance(potential, Exported):
            dtype = potential.info.dtype
        self.potential: Potential = potential if isinstance(potential, Exported) else in_precision(potential, dtype)
        self.tolerance = TOLERANCES[dtype if self._has_network() else "float64"]
        self.halo = 0.0
        known = self._ways()
        wanted = {name: style for name, style in known.items() if not only or any(part in name for part in only)}
        tried = {route.name: route for route in doctor.try_routes(program, set(wanted.values()))}
        if doctor.EXTERNAL in wanted:
            tried[doctor.EXTERNAL] = doctor.try_session()
        self.missing = [route for route in tried.values() if not route.works]
        chosen = [name for name, style in wanted.items() if tried[style].works]
        if not chosen:
            raise InputError(
                f"{path}: no way into LAMMPS is left; see 'pretrain-mlip lammps doctor' (known: {', '.join(known)})"
            )
        self.routes = chosen
        self._files = {name: self._export(name, Path(folder).absolute()) for name in chosen}

    def _has_network(self) -> bool:
        return not isinstance(self.potential, EmbeddedAtom)

    def _ways(self) -> dict[str, str]:
        """Ways that this kind of potential has, and the pair style of each."""
        if isinstance(self.potential, Exported):
            return {PLUGIN: PLUGIN, doctor.EXTERNAL: doctor.EXTERNAL}
        ways = {
            PLUGIN_TORCHSCRIPT: PLUGIN,
            PLUGIN_PACKAGE: PLUGIN,
            MLIAP: MLIAP,
            doctor.EXTERNAL: doctor.EXTERNAL,
        }
        if isinstance(self.potential, EmbeddedAtom):
            style = FINNIS_SINCLAIR if self.potential.form == "fs" else SETFL
            return {style: style, **ways}
        return ways

    def _export(self, route: str, folder: Path) -> Path:
        if isinstance(self.potential, Exported) or route == doctor.EXTERNAL:
            return self.path.absolute()
        if route == MLIAP:
            written = write_mliap(folder / "potential.mliap", self.potential)
            self.halo = written.halo
            return folder / "potential.mliap"
        if route == PLUGIN_TORCHSCRIPT:
            write_export(self.potential, folder / "potential.ts.pt", "torchscript")
            return folder / "potential.ts.pt"
        if route == PLUGIN_PACKAGE:
            write_export(self.potential, folder / "potential.pt2", "pt2")
            return folder / "potential.pt2"
        assert isinstance(self.potential, EmbeddedAtom)  # noqa: S101  # for the type checker
        file = folder / ("potential.eam." + route.removeprefix("eam/"))
        write_setfl(self.potential, file, include_e0=True)
        return file

    def compare(self, structures: dict[str, Atoms], ranks: Sequence[int]) -> Iterator[Comparison]:
        """Each structure by each way on each number of processes; what LAMMPS refuses is told, not raised.

        Args:
            structures: name -> structure. Directions that are not periodic get vacuum first.
            ranks: numbers of processes; ``fix external`` knows one.
        """
        calculator = PretrainedMLIP(self.potential)
        for name, atoms in structures.items():
            boxed = periodic(atoms, self.potential.cutoff)
            boxed.calc = calculator
            expected = Found(boxed.get_potential_energy(), boxed.get_forces(), boxed.get_stress())
            for route in self.routes:
                for count in ranks if route != doctor.EXTERNAL else [1]:
                    try:
                        found = self._compute(route, boxed, count)
                    except (PretrainMLIPError, OSError) as error:
                        yield Comparison(name, len(atoms), route, count, error=str(error))
                        continue
                    yield Comparison(
                        name,
                        len(atoms),
                        route,
                        count,
                        abs(found.energy - expected.energy) / len(atoms),
                        float(np.abs(found.forces - expected.forces).max()),
                        float(np.abs(found.stress - expected.stress).max()) * BAR,
                        float(np.abs(expected.forces).max()),
                    )

    def _compute(self, route: str, boxed: Atoms, ranks: int) -> Found:
        if route == doctor.EXTERNAL:
            import_lammps()
            with LammpsSession(self.potential, boxed) as session:
                there = session.atoms
                return Found(session.energy, there.get_forces(), there.get_stress())
        elements = sorted(set(boxed.symbols))
        lines = potential_lines(self._files[route], elements, self.halo)
        with tempfile.TemporaryDirectory() as folder:
            return single_point(boxed, lines, elements, folder, program=self.program, ranks=ranks)
