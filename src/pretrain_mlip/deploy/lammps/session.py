"""LAMMPS driven from Python with any potential of ours, without a compiler: fix external asks for the forces.

One process; the neighbour list is that of the calculator, with its skin. For more, see the pair style.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator

from pretrain_mlip.calculators.ase import PretrainedMLIP
from pretrain_mlip.deploy.lammps.library import import_lammps
from pretrain_mlip.deploy.lammps.runs import SETUP, periodic, refuse_constraints, rotated_stress, write_structure
from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.potentials.base import Potential

FIX = "pretrain_mlip"
ROUNDING = 1e-14  # relative
IMAGE_BITS = {4: 10, 8: 21}  # of each direction, by bytes of the number that holds all three


class LammpsSession:
    """LAMMPS with a structure and a potential, ready for commands.

        with LammpsSession("model.pt", atoms) as lmp:
            lmp.commands("velocity all create 300 1", "fix 1 all nve", "run 1000")
            print(lmp.energy, lmp.atoms.get_forces())

    Units are LAMMPS's metal (ps, bar) in commands; energies and forces are in eV and eV/Å everywhere.
    """

    def __init__(
        self,
        potential: Potential | str | os.PathLike[str] | PretrainedMLIP,
        atoms: Atoms,
        *,
        dtype: str | None = None,
        skin: float | None = None,
        log: str | os.PathLike[str] = "none",
        **options: Any,
    ) -> None:
        """Start LAMMPS.

        Args:
            potential: of ours, a file of one, or a calculator.
            atoms: the structure; directions that are not periodic get vacuum. Momenta become velocities.
            dtype: as for ``PretrainedMLIP``.
            skin: Å, of the neighbour list; None for 1.
            log: file of LAMMPS's log.
            options: more of them for ``PretrainedMLIP``.

        Raises:
            InputError: LAMMPS is not installed or runs in several processes, the structure is empty, has constraints
                or holds elements that the potential does not know, or options come with a calculator.
        """
        if len(atoms) == 0:
            raise InputError("LammpsSession: the structure has no atoms")
        refuse_constraints(atoms)
        module = import_lammps()
        self.calculator = _calculator(potential, dtype=dtype, skin=skin, **options)
        self._fault: BaseException | None = None
        self._last: tuple[Atoms, dict[str, Any]] | None = None  # of LAMMPS's axes, and what was found for it
        self.elements = sorted(set(atoms.symbols))
        numbers = {symbol: atoms.numbers[list(atoms.symbols).index(symbol)] for symbol in self.elements}
        self._numbers = np.array([0, *(numbers[symbol] for symbol in self.elements)])  # by atom type
        boxed = periodic(atoms, self.calculator.potential.cutoff)
        PretrainedMLIP.calculate(self.calculator, boxed)  # names what it does not know, before LAMMPS starts
        self.engine: Any = module.lammps(cmdargs=["-log", str(log), "-screen", "none", "-nocite"])
        if self.engine.extract_setting("world_size") > 1:
            self.close()
            raise InputError("LammpsSession runs in one process; for several use pair_style pretrain_mlip")
        try:
            self._set_up(boxed, with_velocities=atoms.has("momenta"))
        except BaseException:
            self.close()
            raise

    def _set_up(self, boxed: Atoms, *, with_velocities: bool) -> None:
        cutoff = max(self.calculator.potential.cutoff, 1.0)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "structure.data"
            self._prism = write_structure(path, boxed, self.elements, velocities=with_velocities)
            self.engine.commands_list([*SETUP, f'read_data "{path}"'])
        self.engine.commands_list(
            [
                f"pair_style zero {cutoff:.17g}",
                "pair_coeff * *",
                f"fix {FIX} all external pf/callback 1 1",
                f"fix_modify {FIX} energy yes virial yes",
            ]
        )
        self.engine.set_fix_external_callback(FIX, self._callback, self.engine)
        self.commands("run 0 post no")

    def __enter__(self) -> LammpsSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End LAMMPS; what it holds is lost."""
        self.engine.close()

    def commands(self, *lines: str) -> None:
        """Run lines of LAMMPS's input, one or several at a time.

        Raises:
            ComputationError: LAMMPS refuses a line, or stops while it runs.
            InputError: the potential cannot compute what LAMMPS asks for, as where a position is not finite.
        """
        for line in lines:
            try:
                self.engine.commands_string(line)
            except Exception as error:
                raise ComputationError(f"LAMMPS, '{line}': {' '.join(str(error).split())}") from error
            if self._fault is not None:
                fault, self._fault = self._fault, None
                self.engine.command("timer timeout off")  # of ``force_timeout``: later runs would end at once
                raise fault

    @property
    def energy(self) -> float:
        """Potential energy in eV, of the last run."""
        return float(self.engine.get_thermo("pe"))

    @property
    def atoms(self) -> Atoms:
        """The structure as it is now, in ASE's axes, with momenta, and its own energy, forces and stress.

        They are computed where it has changed since LAMMPS asked for forces, as by ``displace_atoms``.

        Raises:
            InputError: boundaries are no longer periodic, or the potential cannot compute it.
        """
        current = self._current()
        cell = self._prism.vector_to_ase(current.cell.array)
        made = Atoms(current.numbers, positions=self._prism.vector_to_ase(current.positions), cell=cell, pbc=True)
        velocities = self._by_id(self.engine.numpy.extract_atom("v"))
        made.set_velocities(self._prism.vector_to_ase(velocities) / (1000.0 * units.fs))
        results = self._results_of(current)
        made.calc = SinglePointCalculator(
            made,
            energy=results["energy"],
            forces=self._prism.vector_to_ase(results["forces"]),
            stress=rotated_stress(results["stress"], self._prism),
        )
        return made

    def _results_of(self, atoms: Atoms) -> dict[str, Any]:
        if self._last is None or not _same(self._last[0], atoms):
            PretrainedMLIP.calculate(self.calculator, atoms)
            self._last = atoms, dict(self.calculator.results)
        return self._last[1]

    def _by_id(self, values: np.ndarray) -> np.ndarray:
        count = self.engine.extract_setting("nlocal")
        return np.array(values[:count])[np.argsort(self.engine.numpy.extract_atom("id")[:count])]

    def _current(self) -> Atoms:
        """The structure in LAMMPS's axes, its atoms in the order of their IDs and not folded into the cell."""
        low, high, xy, yz, xz, is_periodic, _ = self.engine.extract_box()
        if not all(is_periodic):
            raise InputError("LammpsSession: boundaries have to stay p p p; put vacuum around what is not periodic")
        (lx, ly, lz) = np.subtract(high, low)
        cell = np.array([[lx, 0.0, 0.0], [xy, ly, 0.0], [xz, yz, lz]])
        images = self._by_id(self.engine.numpy.extract_atom("image"))
        bits = IMAGE_BITS[self.engine.extract_setting("imageint")]
        counts = np.stack([images & (1 << bits) - 1, images >> bits & (1 << bits) - 1, images >> 2 * bits], axis=1)
        turns = counts - (1 << bits - 1)
        positions = self._by_id(self.engine.numpy.extract_atom("x")) - np.array(low) + turns @ cell
        numbers = self._numbers[self._by_id(self.engine.numpy.extract_atom("type"))]
        return Atoms(numbers, positions=positions, cell=cell, pbc=True)

    def _callback(
        self, engine: Any, _step: int, count: int, tag: np.ndarray, _x: np.ndarray, forces: np.ndarray
    ) -> None:
        try:
            current = self._current()
            found = self._results_of(current)
            order = np.argsort(np.argsort(tag[:count]))
            forces[:] = found["forces"][order]
            sxx, syy, szz, syz, sxz, sxy = -current.get_volume() * found["stress"]
            engine.fix_external_set_energy_global(FIX, found["energy"])
            engine.fix_external_set_virial_global(FIX, [sxx, syy, szz, sxy, sxz, syz])
            engine.numpy.fix_external_set_energy_peratom(FIX, found["energies"][order])
        except BaseException as error:  # noqa: BLE001  # LAMMPS would go on without a word; `commands` raises it
            self._fault = error
            forces[:] = 0.0
            engine.force_timeout()


def _same(one: Atoms, other: Atoms) -> bool:
    """Whether structures are equal, but for the rounding of positions that were folded and unfolded."""
    return (
        len(one) == len(other)
        and bool((one.numbers == other.numbers).all())
        and bool((one.cell.array == other.cell.array).all())
        and bool(np.abs(one.positions - other.positions).max() <= ROUNDING * max(1.0, np.abs(one.positions).max()))
    )


def _calculator(
    potential: Potential | str | os.PathLike[str] | PretrainedMLIP, *, skin: float | None, **options: Any
) -> PretrainedMLIP:
    if isinstance(potential, PretrainedMLIP):
        if skin is not None or any(value is not None for value in options.values()):
            raise InputError("LammpsSession: a calculator has its own skin and options; give them to it")
        return potential
    options["skin"] = 1.0 if skin is None else skin
    if isinstance(potential, Potential):
        return PretrainedMLIP(potential, **options)
    return PretrainedMLIP.load(potential, **options)
