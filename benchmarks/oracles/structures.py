"""Structures on which our M3GNet is compared with MatGL's; needs numpy and ASE alone."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.spacegroup import crystal


def structures() -> dict[str, Atoms]:
    """Si-O, P and Li-Mn-P-O, displaced by a tenth of an Å, in cells of several shapes."""
    quartz = crystal(
        ["Si", "O"],
        basis=[(0.4697, 0.0, 1 / 3), (0.4135, 0.2669, 0.2142)],
        spacegroup=152,
        cellpar=[4.916, 4.916, 5.405, 90, 90, 120],
    )
    phosphorus = crystal(
        "P", basis=[(0.0, 0.1017, 0.0806)], spacegroup=64, cellpar=[3.3136, 10.478, 4.3763, 90, 90, 90]
    )
    olivine = crystal(
        ["Li", "Mn", "P", "O", "O", "O"],
        basis=[
            (0.0, 0.0, 0.0),
            (0.2817, 0.25, 0.9719),
            (0.0923, 0.25, 0.4081),
            (0.0968, 0.25, 0.7330),
            (0.4561, 0.25, 0.2098),
            (0.1609, 0.0493, 0.2781),
        ],
        spacegroup=62,
        cellpar=[10.45, 6.11, 4.75, 90, 90, 90],
    )
    found = {"silica": quartz * (2, 1, 1), "phosphorus": phosphorus * (2, 1, 1), "olivine": olivine}
    for number, atoms in enumerate(found.values()):
        rng = np.random.default_rng(number)
        atoms.positions += rng.normal(scale=0.1, size=atoms.positions.shape)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.uniform(-0.04, 0.04, (3, 3))), scale_atoms=True)
    return {name: Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=True) for name, atoms in found.items()}
