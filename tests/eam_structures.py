"""Random structures and potentials on which codes must agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk, fcc111
from ase.data import atomic_numbers, covalent_radii

from pretrain_mlip import EAM
from pretrain_mlip.structures.neighbors import find_pairs

# The shortest distance by the sum of covalent radii. What a melt at several thousand kelvin visits lies above; below,
# forces are hundreds of eV/Å and rounding alone is a matter of 1e-12 of them.
CLOSEST = 0.62
LOWEST = 1e-3  # of densities; see ``dilute``


def random_eam(elements: Sequence[str], form: str, seed: int, spread: float = 0.2, cutoff: float = 6.0) -> EAM:
    """Parameters that differ from pair to pair; no E0s, which setfl tables do not hold."""
    eam = EAM(elements, cutoff, form)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in eam.parameters():
            value.add_(spread * torch.randn(value.shape, generator=generator, dtype=torch.float64))
    return eam.requires_grad_(False)


def random_structures(elements: Sequence[str], seed: int) -> dict[str, Atoms]:
    """Ten periodic structures of 1 to 256 atoms of the given elements."""
    rng = np.random.default_rng(seed)
    length = 2.05 * float(np.mean([covalent_radii[atomic_numbers[symbol]] for symbol in elements]))  # a bond's

    def dress(atoms: Atoms) -> Atoms:
        atoms.symbols[:] = rng.choice(elements, len(atoms))
        return atoms

    def strained(atoms: Atoms, size: float, shake: float = 0.0) -> Atoms:
        strain = np.eye(3) + rng.uniform(-size, size, (3, 3))
        atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
        atoms.positions += rng.normal(scale=shake * length, size=atoms.positions.shape)
        return dress(atoms)

    fcc = bulk("Cu", a=2**0.5 * length)
    cubic = bulk("Cu", a=2**0.5 * length, cubic=True)
    slab = fcc111("Cu", (3, 3, 4), a=2**0.5 * length, vacuum=5.0)
    skewed = np.array([[3.0, 0, 0], [2.1, 3.0, 0], [-1.8, 1.6, 3.0]]) * length
    makers: dict[str, Callable[[], Atoms]] = {
        "one atom, strained": lambda: strained(fcc.copy(), 0.1),
        "one atom, skewed": lambda: dress(Atoms("X", cell=skewed / 2.8, pbc=True)),
        "two atoms": lambda: strained(bulk("CsCl", "cesiumchloride", a=1.15 * length), 0.08),
        "rattled crystal": lambda: strained(cubic * (2, 2, 2), 0.05, 0.05),
        "compressed crystal": lambda: strained(_scaled(cubic * (3, 3, 3), 0.85), 0.03, 0.02),
        "surface": lambda: strained(_periodic(slab), 0.03, 0.05),
        "melt of 64": lambda: _melt(rng, elements, np.eye(3) * (64 * 0.8 * length**3) ** (1 / 3), 64),
        "melt of 256": lambda: _melt(rng, elements, np.eye(3) * (256 * 0.8 * length**3) ** (1 / 3), 256),
        "triclinic melt": lambda: _melt(rng, elements, skewed, 24),
        "dilute": lambda: _dilute(rng, elements, length),
    }
    return {name: make() for name, make in makers.items()}


def _scaled(atoms: Atoms, factor: float) -> Atoms:
    atoms.set_cell(atoms.cell.array * factor, scale_atoms=True)
    return atoms


def _periodic(atoms: Atoms) -> Atoms:
    atoms.pbc = True
    return atoms


def _melt(rng: np.random.Generator, elements: Sequence[str], cell: np.ndarray, count: int) -> Atoms:
    """Random positions, each at least CLOSEST of the covalent sum from all before it."""
    atoms = Atoms(cell=cell, pbc=True)
    radii = {
        (atomic_numbers[a], atomic_numbers[b]): CLOSEST
        * float(covalent_radii[atomic_numbers[a]] + covalent_radii[atomic_numbers[b]])
        for a in elements
        for b in elements
    }
    while len(atoms) < count:
        trial = atoms + Atoms([str(rng.choice(elements))], positions=[rng.random(3) @ cell])
        if len(find_pairs("i", trial, radii)[0]) == 0:
            atoms = trial
            atoms.set_cell(cell)
            atoms.pbc = True
    return atoms


def _dilute(rng: np.random.Generator, elements: Sequence[str], length: float) -> Atoms:
    """A chain in a large box: every atom has one or two neighbours, and a density well above LOWEST.

    Below, LAMMPS and the function itself differ by more than 1e-8 eV: the slope of its first interval is a difference
    of two samples where F'' is largest. ``test_nearly_isolated_atoms`` says by how much.
    """
    steps = rng.uniform(0.8, 1.4, 5) * length
    positions = np.cumsum([[0, 0, 0], *([step, 0.3, -0.2] for step in steps)], axis=0)
    return Atoms(list(rng.choice(elements, 6)), positions=positions + 3.0, cell=[45.0, 17.0, 18.0], pbc=True)
