"""Input files for LAMMPS: those of the folder ``lammps``, and a small one that goes with an exported potential."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ase import Atoms

from pretrain_mlip.deploy.lammps.runs import (
    MLIAP,
    SETUP,
    periodic,
    potential_lines,
    refuse_constraints,
    stem_of,
    style_of,
    write_structure,
)
from pretrain_mlip.errors import InputError
from pretrain_mlip.files import atomic_path, write_text

_PACKAGED = Path(__file__).parent / "decks"
DECKS = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[4] / "lammps"  # in a checkout, beside src

MEMORY = (
    "# Memory grows with the square of the atoms in a process",
    'if "$(atoms) > $(10000*extract_setting(world_size))" then &',
    '  "print \'ERROR: more than 10000 atoms in a process\'" "quit 1"',
)
MOTION = """
neighbor 1.0 bin
neigh_modify every 1 delay 0 check yes
thermo 100
thermo_style custom step time temp pe etotal press vol
timestep 0.001 # ps
velocity all create 300 1 mom yes rot no
fix motion all nvt temp 300 300 0.1
dump frames all custom 100 {name}.dump id element x y z vx vy vz fx fy fz
dump_modify frames element {symbols} sort id
run 1000
"""


def write_deck(
    model: str | os.PathLike[str], atoms: Atoms, elements: Sequence[str], *, cutoff: float, halo: float = 0.0
) -> Path:
    """Write an input file and a data file beside an exported potential: 1 ps at 300 K, to go on from.

    Args:
        model: the exported file.
        atoms: the structure; directions that are not periodic get vacuum.
        elements: that the potential knows; those of the structure become the atom types.
        cutoff: Å, of the potential.
        halo: Å, see ``potential_lines``.

    Returns:
        The input file. The three files belong into one folder.

    Raises:
        InputError: see ``types_of``, ``refuse_constraints`` and ``files_of_deck``.
    """
    model, symbols = Path(model), types_of(atoms, elements)
    refuse_constraints(atoms)
    deck, data = files_of_deck(model)
    name = deck.stem
    with atomic_path(data) as temporary:
        write_structure(temporary, periodic(atoms, cutoff), symbols)
    lines = [
        f"# lmp -in {deck.name}",
        *SETUP,
        f"read_data {data.name}",
        *potential_lines(model.name, symbols, halo),
        *(MEMORY if style_of(model) == MLIAP else ()),
    ]
    write_text(deck, "\n".join(lines) + MOTION.format(name=name, symbols=" ".join(symbols)))
    return deck


def files_of_deck(model: str | os.PathLike[str]) -> tuple[Path, Path]:
    """The input file and the data file that go with an exported potential.

    Raises:
        InputError: one is there already, and may have been edited.
    """
    model = Path(model)
    deck, data = (model.with_name(stem_of(model) + suffix) for suffix in (".in", ".data"))
    for file in (deck, data):
        if file.exists():
            raise InputError(f"{file}: is there, and is not written over; move it away, or export without a deck")
    return deck, data


def types_of(atoms: Atoms, elements: Sequence[str]) -> list[str]:
    """The elements of a structure in the order of a potential's: its atom types.

    Raises:
        InputError: the structure is empty, or holds elements that the potential does not know.
    """
    if strange := sorted(set(atoms.symbols) - set(elements)):
        raise InputError(f"the potential knows {', '.join(elements)}, and not {', '.join(strange)} of the structure")
    if len(atoms) == 0:
        raise InputError("the structure has no atoms")
    return [symbol for symbol in elements if symbol in set(atoms.symbols)]
