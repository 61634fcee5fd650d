"""Energy conservation of an EAM in ASE and in LAMMPS, and how long their trajectories stay one.

Nickel, 500 atoms at 1000 K, 10 ps at constant energy: our calculator with its skin in ASE, the exported eam/alloy
tables in LAMMPS, from the same positions and velocities. The EAM is fitted to the mlearn data of nickel where
PRETRAIN_MLIP_DATA has them; otherwise it is that of Mishin et al. for copper, from the tables that LAMMPS ships.

    python -m benchmarks.eam_nve [fs per step]

Drift is the slope of a straight line through the total energy. Constants: see ``tests.lammps_oracle.Lammps.nve``.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from ase.build import bulk
from tests.lammps_oracle import Lammps, largest_distance, nve_with_ase, set_in_motion

from pretrain_mlip import EAM, fit_eam
from pretrain_mlip.potentials.eam.embedded_atom import EmbeddedAtom
from pretrain_mlip.structures.io import read_structures

PICOSECONDS, TEMPERATURE = 10.0, 1000.0
DATA = Path(os.environ.get("PRETRAIN_MLIP_DATA", "")) / "nickel_mlearn.extxyz.gz"


def potential() -> tuple[EmbeddedAtom, str, float]:
    """An EAM, its element and lattice constant."""
    if DATA.is_file():
        frames = read_structures(DATA)[::4]
        return fit_eam(frames, cutoff=6.0), "Ni", 3.52
    import lammps

    tables = Path(lammps.__file__).parent / "share" / "lammps" / "potentials" / "Cu_mishin1.eam.alloy"
    return EAM.from_setfl(tables), "Cu", 3.615


def follow(name: str, run: Iterator[tuple[np.ndarray, float]], atoms: int, every: float) -> np.ndarray:
    """Print the drift over a run; ``every`` in ps. The last positions."""
    start = time.process_time()
    found = list(run)
    energies = np.array([energy for _, energy in found]) * 1e3 / atoms
    times = every * np.arange(len(energies))
    slope, offset = np.polyfit(times, energies, 1)
    noise = np.std(energies - slope * times - offset)
    seconds = time.process_time() - start
    print(f"{name:8s} drift {slope:+.2e} meV/atom/ps, noise {noise:.1e} meV/atom, {seconds:.0f} s of processor time")
    return found[-1][0]


def main(timestep: float) -> None:
    torch.set_num_threads(1)
    eam, symbol, lattice = potential()
    atoms = bulk(symbol, "fcc", a=lattice, cubic=True) * (5, 5, 5)
    # a perfect crystal gives half of its kinetic energy to vibrations
    set_in_motion(atoms, 2 * TEMPERATURE)
    steps, every = round(1000.0 * PICOSECONDS / timestep), 10
    engine = Lammps()
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "exported.eam.alloy"
        eam.write_setfl(table)
        print(f"{len(atoms)} atoms of {symbol}, {steps} steps of {timestep} fs")
        ours = atoms.copy()
        ours.calc = eam.calculator()
        pairs = zip(
            nve_with_ase(ours, timestep, 100, 1),
            engine.nve(atoms, table, eam.elements, timestep, 100, 1),
            strict=True,
        )
        apart = [largest_distance(a, b, atoms) for (a, _), (b, _) in islice(pairs, 101)]
        print(f"positions in the first 100 steps differ by {max(apart):.1e} Å at most")
        interval = every * timestep / 1e3
        run = engine.nve(atoms, table, eam.elements, timestep, steps, every)
        last = follow("LAMMPS", run, len(atoms), interval)
        ours = atoms.copy()
        ours.calc = eam.calculator()
        run = nve_with_ase(ours, timestep, steps, every)
        apart_at_the_end = largest_distance(last, follow("ASE", run, len(atoms), interval), atoms)
        print(f"positions at the end differ by {apart_at_the_end:.1e} Å at most")
        print(f"temperature at the end {ours.get_temperature():.0f} K")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 2.0)
