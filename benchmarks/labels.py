"""Frames labelled per minute by an EAM of 8 Å cutoff, neighbour lists included, with 1, 2, ... worker processes.

Rattled beta-cristobalite of 72 atoms, wall time, median and best of some rounds. One worker is this process; the time
in which several start is given apart.

    python benchmarks/labels.py [frames [workers ...]]
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from ase import Atoms
from ase.spacegroup import crystal

from pretrain_mlip import EAM
from pretrain_mlip.calculators.batched import predict
from pretrain_mlip.calculators.distributed import local_cluster, predict_with

ROUNDS = 5


def structures(count: int) -> list[Atoms]:
    """Three cubic cells in a row, each copy rattled differently."""
    primitive = crystal(["Si", "O"], [(0, 0, 0), (0.125, 0.125, 0.125)], spacegroup=227, cellpar=[7.16] * 3 + [90] * 3)
    cell = primitive * (3, 1, 1)
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(count):
        atoms = cell.copy()
        atoms.positions += rng.normal(scale=0.1, size=atoms.positions.shape)
        frames.append(atoms)
    return frames


def main(count: int, numbers: list[int]) -> None:
    torch.set_num_threads(1)
    eam, frames = EAM(["O", "Si"], cutoff=8.0), structures(count)
    print(f"{count} frames of {len(frames[0])} atoms, {ROUNDS} rounds, frames per minute")
    for workers in numbers:
        if workers == 1:
            report(1, frames, partial(predict, eam, frames))
            continue
        begin = time.perf_counter()
        with local_cluster(workers) as client:
            predict_with(client, eam, frames[: 100 * workers])  # workers import what they need
            print(f"{workers:2d} workers  started after {time.perf_counter() - begin:.1f} s")
            report(workers, frames, partial(predict_with, client, eam, frames))


def report(workers: int, frames: list[Atoms], label: Callable[[], object]) -> None:
    rates = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        label()
        rates.append(60.0 * len(frames) / (time.perf_counter() - begin))
    print(f"{workers:2d} workers  median {statistics.median(rates):.0f}  best {max(rates):.0f}")


if __name__ == "__main__":
    arguments = [int(word) for word in sys.argv[1:]]
    main(arguments[0] if arguments else 1000, arguments[1:] or [1, 2])
