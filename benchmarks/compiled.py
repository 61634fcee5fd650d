"""What compiling saves: one call of the calculator, and one training step, of every network, plain and compiled.

One thread, process CPU time, the two interleaved, median of the rounds. Float32, cutoff 5 Å, default sizes. The first
call, in wall time, is that of compiling; torch finds what an earlier run compiled on disk.

    python benchmarks/compiled.py [network ...]
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import statistics
import sys
import time
from collections.abc import Callable
from copy import deepcopy

import numpy as np
import torch
from ase.spacegroup import crystal

from pretrain_mlip import PretrainedMLIP, available_models, build_model, keys
from pretrain_mlip.graphs.graph import make_batch, make_graph
from pretrain_mlip.potentials.base import Potential
from pretrain_mlip.potentials.compiled import compiled

ROUNDS = 15
CELL = crystal(["Si", "O"], [(0, 0, 0), (0.125, 0.125, 0.125)], spacegroup=227, cellpar=[7.16] * 3 + [90] * 3)


def milliseconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return 1e3 * (time.process_time() - start)


def compare(label: str, plain: Callable[[], object], fast: Callable[[], object]) -> None:
    start = time.perf_counter()
    fast()
    first = time.perf_counter() - start
    times = np.array([(milliseconds(plain), milliseconds(fast)) for _ in range(ROUNDS)])
    slow, quick = (statistics.median(column) for column in times.T)
    print(f"{label:32} plain {slow:7.1f} ms  compiled {quick:7.1f} ms  ({slow / quick:.2f})  first call {first:.0f} s")


def call(name: str, repeat: int, *, compile: bool) -> Callable[[], object]:  # noqa: A002  # as the calculator names it
    atoms = CELL * (repeat, repeat, repeat)
    atoms.calc = PretrainedMLIP(build_model(name, ["O", "Si"]), compile=compile)
    rng = np.random.default_rng(0)

    def work() -> None:
        atoms.positions += rng.normal(scale=0.01, size=atoms.positions.shape)
        atoms.get_forces()

    return work


def step(potential: Potential, frames: int) -> Callable[[], object]:
    rng = np.random.default_rng(0)
    structures = [CELL.copy() for _ in range(frames)]
    for atoms in structures:
        atoms.positions += rng.normal(scale=0.1, size=atoms.positions.shape)
    batch = make_batch([make_graph(atoms, potential.cutoff) for atoms in structures])

    def work() -> None:
        output = potential(batch, create_graph=True)
        (output[keys.ENERGY].square().sum() + output[keys.FORCES].square().sum()).backward()

    return work


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    for name in names:
        for repeat in (1, 2, 3):
            label = f"{name}, {len(CELL) * repeat**3} atoms"
            compare(label, call(name, repeat, compile=False), call(name, repeat, compile=True))
        network = build_model(name, ["O", "Si"])
        compare(f"{name}, training, 4 x 24 atoms", step(deepcopy(network), 4), step(compiled(network), 4))


if __name__ == "__main__":
    main(sys.argv[1:] or available_models())
