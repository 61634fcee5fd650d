"""Frames labelled per minute by an EAM of 8 Å cutoff, neighbour lists included, with 1, 2, ... worker processes.

Rattled beta-cristobalite of 72 atoms, wall time. One worker is this process; the time in which more start is given
apart.

    python benchmarks/labels.py [frames [workers ...]]
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import sys
import time

import numpy as np
import torch
from ase import Atoms
from ase.spacegroup import crystal

from pretrain_mlip import EAM
from pretrain_mlip.calculators.batched import predict
from pretrain_mlip.calculators.distributed import local_cluster, predict_with


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


def report(workers: int, frames: list[Atoms], seconds: float, start: float = 0.0) -> None:
    rate = 60.0 * len(frames) / seconds
    print(f"{workers} workers  {len(frames)} frames of {len(frames[0])} atoms  {seconds:6.1f} s (start {start:.1f} s)")
    print(f"{'':11s}{rate:8.0f} frames per minute")


def main(count: int, numbers: list[int]) -> None:
    torch.set_num_threads(1)
    eam, frames = EAM(["O", "Si"], cutoff=8.0), structures(count)
    for workers in numbers:
        begin = time.perf_counter()
        if workers == 1:
            predict(eam, frames)
            report(1, frames, time.perf_counter() - begin)
            continue
        with local_cluster(workers) as client:
            predict_with(client, eam, frames[:workers])  # workers import what they need
            ready = time.perf_counter()
            predict_with(client, eam, frames)
            report(workers, frames, time.perf_counter() - ready, ready - begin)


if __name__ == "__main__":
    arguments = [int(word) for word in sys.argv[1:]]
    main(arguments[0] if arguments else 2000, arguments[1:] or [1, 2])
