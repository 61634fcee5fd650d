"""Constant-energy MD: one trajectory in ASE and in LAMMPS. benchmarks/eam_nve.py has the long version."""

from __future__ import annotations

from pathlib import Path

import pytest
from ase.build import bulk
from tests.eam_structures import random_eam
from tests.lammps_oracle import largest_distance, nve_with_ase, published, running, set_in_motion

from pretrain_mlip import EAM
from pretrain_mlip.potentials.eam.embedded_atom import EmbeddedAtom


@pytest.mark.parametrize("name", ["published copper", "ours, two elements, fs"])
def test_100_steps_in_ase_and_lammps(name: str, tmp_path: Path) -> None:
    eam: EmbeddedAtom
    if name == "published copper":
        eam = EAM.from_setfl(published("Cu_mishin1.eam.alloy"))
        atoms, temperature = bulk("Cu", "fcc", a=3.615, cubic=True) * (3, 3, 3), 2000.0
    else:
        eam = random_eam(["Al", "Ni"], "fs", seed=1)
        atoms, temperature = bulk("Ni", "fcc", a=3.6, cubic=True) * (3, 3, 3), 600.0
        atoms.symbols[::3] = "Al"
    set_in_motion(atoms, temperature)
    table = tmp_path / f"exported.eam.{eam.form}"
    eam.write_setfl(table)
    ours = atoms.copy()
    ours.calc = eam.calculator()
    with running() as lammps:
        steps = zip(
            nve_with_ase(ours, 2.0, 100, 10),
            lammps.nve(atoms, table, eam.elements, 2.0, 100, 10),
            strict=True,
        )
        for (positions, energy), (expected, expected_energy) in steps:
            # rounding grows by collisions, a hundredfold in 0.2 ps; one constant that differs by 1e-7 gives 1e-7 Å
            assert largest_distance(positions, expected, atoms) < 1e-8
            assert energy == pytest.approx(expected_energy, abs=1e-8 * len(atoms))
    assert largest_distance(ours.positions, atoms.positions, atoms) > 0.1  # it did move
