"""Molecular dynamics with a trained potential through ASE.

Usage: python examples/ase_md.py runs/silica_mini/models/replay/best.pt structure.cif
"""

import sys

from ase import units
from ase.io import read
from ase.md.langevin import Langevin

from pretrain_mlip import PretrainedMLIP

potential, structure = sys.argv[1:]
atoms = read(structure)
atoms.calc = PretrainedMLIP.load(potential)
dynamics = Langevin(  # atoms start from rest; the thermostat heats them within a few 0.1 ps
    atoms,
    timestep=1.0 * units.fs,
    temperature_K=300,
    friction=0.01 / units.fs,
    trajectory="md.traj",
    logfile="-",
    loginterval=20,
)
dynamics.run(200)
