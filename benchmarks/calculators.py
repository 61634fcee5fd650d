"""Energy, forces and stress per call: our EAM and CGCNN beside ASE's and matscipy's EAM on the same setfl tables.

One thread, process CPU time, calculators interleaved, median of the rounds. Atoms move a little between calls, as in
MD, so that neighbour lists are kept or rebuilt as they would be there.

    python benchmarks/calculators.py [atoms ...]
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.calculators.eam import EAM as ASE_EAM  # two classes of one name
from ase.spacegroup import crystal
from matscipy.calculators.eam import EAM as MATSCIPY_EAM

from pretrain_mlip import EAM, PretrainedMLIP, build_model

ROUNDS = 7


def cristobalite(atoms: int) -> Atoms:
    """Ideal beta-cristobalite of at least so many atoms."""
    cell = crystal(["Si", "O"], [(0, 0, 0), (0.125, 0.125, 0.125)], spacegroup=227, cellpar=[7.16] * 3 + [90] * 3)
    repeat = max(1, round((atoms / len(cell)) ** (1 / 3)))
    return cell * (repeat, repeat, repeat)


def milliseconds(atoms: Atoms, rng: np.random.Generator) -> float:
    atoms.positions += rng.normal(scale=0.01, size=atoms.positions.shape)
    start = time.process_time()
    atoms.get_potential_energy()
    atoms.get_forces()
    atoms.get_stress()
    return 1e3 * (time.process_time() - start)


def main(sizes: list[int]) -> None:
    torch.set_num_threads(1)
    eam = EAM(["O", "Si"], cutoff=6.0)
    network = build_model("cgcnn", ["O", "Si"])
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "silica.eam.alloy")
        eam.write_setfl(path)
        for size in sizes:
            calculators = {
                "ours: EAM (6 Å)": PretrainedMLIP(eam),
                "matscipy: EAM (6 Å)": MATSCIPY_EAM(path),
                "ASE: EAM (6 Å)": ASE_EAM(potential=path) if size <= 200 else None,
                "ours: CGCNN 64x3 (5 Å)": PretrainedMLIP(network),
            }
            systems = {}
            for name, calculator in calculators.items():
                if calculator is not None:
                    systems[name] = cristobalite(size)
                    systems[name].calc = calculator
            times: dict[str, list[float]] = {name: [] for name in systems}
            rngs = {name: np.random.default_rng(0) for name in systems}
            for _ in range(ROUNDS + 1):
                for name, atoms in systems.items():
                    times[name].append(milliseconds(atoms, rngs[name]))
            for name, found in times.items():
                median = statistics.median(found[1:])  # the first call builds lists and warms up
                count = len(systems[name])
                print(f"{count:6d} atoms  {name:24s} {median:9.2f} ms  {1e3 * median / count:8.1f} µs/atom")


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [24, 192])
