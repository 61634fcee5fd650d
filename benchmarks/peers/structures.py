"""What is timed; needs numpy and ASE alone."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.spacegroup import crystal


def structure(name: str, seed: int = 0) -> Atoms:
    """q72, c192, c648, ...: rattled quartz or beta-cristobalite of so many atoms (26 pairs per atom at 5 Å)."""
    if name.startswith("q"):
        cell = crystal(
            ["Si", "O"],
            basis=[(0.4697, 0.0, 1 / 3), (0.4135, 0.2669, 0.2142)],
            spacegroup=152,
            cellpar=[4.916, 4.916, 5.405, 90, 90, 120],
        )
    else:
        cell = crystal(["Si", "O"], [(0, 0, 0), (0.125, 0.125, 0.125)], spacegroup=227, cellpar=[7.16] * 3 + [90] * 3)
    cells = int(name[1:]) // len(cell)
    width = int(cells ** (1 / 3) + 1e-6)
    many = cell * (width, width, cells // width**2)
    if len(many) != int(name[1:]):
        raise ValueError(f"{name}: {len(many)} atoms is the nearest size")
    atoms = Atoms(many.symbols, many.positions, cell=many.cell, pbc=True)
    atoms.rattle(0.05, seed=seed)
    return atoms


def labelled(name: str, number: int) -> list[Atoms]:
    """Structures with made-up energies (eV) in info and forces (eV/Å) in arrays, for training steps."""
    frames = []
    for seed in range(number):
        atoms, rng = structure(name, seed), np.random.default_rng(seed)
        atoms.info["energy"] = float(rng.normal() - 5 * len(atoms))
        atoms.arrays["forces"] = rng.normal(size=(len(atoms), 3))
        frames.append(atoms)
    return frames
