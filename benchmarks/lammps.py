"""The pair style in LAMMPS: time beside the bare call, two processes beside one, 20,000 atoms, and a drift.

    python -m benchmarks.lammps overhead|ranks|memory|drift MODEL STRUCTURE

MODEL is an exported file (.pt2, .ts.pt; drift wants float64), STRUCTURE a file of a crystal, which is repeated. One
thread in each process. 'pretrain-mlip lammps build-plugin' comes first.
"""

from __future__ import annotations

import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import ase.io
import numpy as np
import torch
from ase import Atoms, units

from pretrain_mlip import keys
from pretrain_mlip.deploy.lammps.runs import SETUP, find_program, potential_lines, run_lammps, write_structure
from pretrain_mlip.graphs.graph import edge_vectors, make_graph
from pretrain_mlip.memory import keep_memory
from pretrain_mlip.potentials.exported import Exported, load_exported


def grown(atoms: Atoms, count: int) -> Atoms:
    """The smallest nearly cubic repetition with at least so many atoms."""
    repeats = np.ones(3, dtype=int)
    while len(atoms) * repeats.prod() < count:
        repeats[(atoms.cell.lengths() * repeats).argmin()] += 1
    return atoms * tuple(repeats)


def bare(potential: Exported, atoms: Atoms, calls: int) -> float:
    """Processor time of a call of the exported code in ms, median."""
    graph = make_graph(atoms, potential.cutoff)
    given = potential.types(graph[keys.ATOMIC_NUMBERS]), graph[keys.EDGE_INDEX], edge_vectors(graph)
    times = []
    for _ in range(calls):
        start = time.process_time()
        potential.energies_and_gradient(*given)
        times.append(1e3 * (time.process_time() - start))
    return statistics.median(times)


def step(model: Path, atoms: Atoms, ranks: int, steps: int) -> tuple[float, float]:
    """Time of a step of NVE in LAMMPS and of the pair style in it, in ms."""
    elements = sorted(set(atoms.symbols))
    lines = [
        *(*SETUP, "read_data start.data", *potential_lines(model.absolute(), elements)),
        *("neighbor 1.0 bin", "neigh_modify every 1 delay 0 check yes", "timestep 0.0005"),
        *("velocity all create 300 1", "fix 1 all nve", "thermo 1000", "run 5", f"run {steps}"),
    ]
    with tempfile.TemporaryDirectory() as folder:
        write_structure(Path(folder) / "start.data", atoms, elements)
        (Path(folder) / "in").write_text("\n".join(lines) + "\n")
        output = run_lammps("in", folder, program=find_program(), ranks=ranks).splitlines()
    loop = [line for line in output if line.startswith("Loop time of")][-1]
    pair = [line for line in output if line.startswith("Pair ")][-1]
    return 1e3 * float(loop.split()[3]) / steps, 1e3 * float(pair.split("|")[2]) / steps


def overhead(model: Path, atoms: Atoms) -> None:
    """Steps beside bare calls, interleaved."""
    potential = load_exported(model)
    for count in (192, 1536):
        structure = grown(atoms, count)
        calls = 7000 // count + 3
        rounds = [(bare(potential, structure, calls), step(model, structure, 1, calls)) for _ in range(5)]
        call = statistics.median(each for each, _ in rounds)
        whole, pair = (statistics.median(values) for values in zip(*(each for _, each in rounds), strict=True))
        print(
            f"{len(structure)} atoms: call {call:.2f} ms, step {whole:.2f} ms ({whole / call:.2f}), pair style in it "
            f"{pair:.2f} ms ({pair / call:.2f})"
        )


def ranks(model: Path, atoms: Atoms) -> None:
    """Two processes beside one, interleaved."""
    structure = grown(atoms, 5000)
    rounds = [(step(model, structure, 1, 10)[0], step(model, structure, 2, 10)[0]) for _ in range(3)]
    one, two = (statistics.median(values) for values in zip(*rounds, strict=True))
    print(f"{len(structure)} atoms: one process {one:.0f} ms a step, two {two:.0f} ms, {one / two:.2f} times faster")


def memory(model: Path, atoms: Atoms) -> None:
    """A run of 20,000 atoms on two processes."""
    structure = grown(atoms, 20_000)
    time_of_step, _ = step(model, structure, 2, 5)
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"{len(structure)} atoms, two processes: {time_of_step:.0f} ms a step, at most {most:.2f} GiB in one of them")


def drift(model: Path, atoms: Atoms) -> None:
    """The total energy in 2,000 steps of 0.5 fs that start at 300 K, after a relaxation."""
    elements = sorted(set(atoms.symbols))
    structure = grown(atoms, 192)
    lines = [
        *(*SETUP, "read_data start.data", *potential_lines(model.absolute(), elements)),
        *("neighbor 1.0 bin", "neigh_modify every 1 delay 0 check yes", "timestep 0.0005", "minimize 0 1e-3 500 5000"),
        *("reset_timestep 0", "velocity all create 600 1 mom yes", "fix 1 all nve", "thermo 10"),
        *("thermo_style custom step temp etotal", "thermo_modify norm no format float %.14g", "run 2000"),
    ]
    with tempfile.TemporaryDirectory() as folder:
        write_structure(Path(folder) / "start.data", structure, elements)
        (Path(folder) / "in").write_text("\n".join(lines) + "\n")
        output = run_lammps("in", folder, program=find_program()).splitlines()
    first = max(number for number, line in enumerate(output) if line.split()[:1] == ["Step"])
    rows = np.array([[float(word) for word in line.split()] for line in output[first + 1 : first + 202]])
    slope = np.polyfit(rows[:, 0] * 0.5e-3, rows[:, 2] / len(structure) * 1e3, 1)[0]
    spread = rows[:, 2].std() / len(structure) * 1e3
    print(
        f"{len(structure)} atoms, {rows[:, 1].mean():.0f} K: drift {slope:.4f} meV/atom/ps, "
        f"fluctuation {spread:.4f} meV/atom ({units.kB * 300e3:.0f} meV is kT)"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    keep_memory()  # as the pair style does
    {"overhead": overhead, "ranks": ranks, "memory": memory, "drift": drift}[sys.argv[1]](
        Path(sys.argv[2]), ase.io.read(sys.argv[3])
    )
