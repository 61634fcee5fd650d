"""Time to read a large extended XYZ file: this package beside plain ase.io.read.

Usage: python benchmarks/read_extxyz.py [frames] [atoms]
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms

from pretrain_mlip.structures.io import read_structures, set_labels, write_structures


def random_frames(n_frames: int, n_atoms: int) -> list[Atoms]:
    rng = np.random.default_rng(0)
    length = (15.0 * n_atoms) ** (1 / 3)
    frames = []
    for number in range(n_frames):
        numbers = rng.choice([8, 14], size=n_atoms, p=[2 / 3, 1 / 3])
        atoms = Atoms(numbers, positions=rng.uniform(0, length, (n_atoms, 3)), cell=[length] * 3, pbc=True)
        atoms.info = {"config_type": "random", "structure_id": f"random-{number}", "split": "train"}
        set_labels(atoms, rng.normal(), rng.normal(size=(n_atoms, 3)), rng.normal(size=6))
        frames.append(atoms)
    return frames


def main() -> None:
    n_frames, n_atoms = (int(word) for word in (sys.argv[1:] + ["10000", "70"][len(sys.argv) - 1 :]))
    with tempfile.TemporaryDirectory() as folder:
        for name in ("frames.extxyz", "frames.extxyz.gz"):
            path = Path(folder) / name
            start = time.perf_counter()
            write_structures(path, random_frames(n_frames, n_atoms))
            print(f"{name}: {n_frames} frames of {n_atoms} atoms, written in {time.perf_counter() - start:.1f} s")
            start = time.perf_counter()
            assert len(read_structures(path)) == n_frames  # noqa: S101  # a benchmark of what works
            print(f"  read_structures  {time.perf_counter() - start:6.1f} s")
            if name.endswith(".gz"):
                continue  # plain ASE seeks back and forth in the gzip stream, which is no fair comparison
            start = time.perf_counter()
            ase.io.read(path, index=":")
            print(f"  ase.io.read      {time.perf_counter() - start:6.1f} s")


if __name__ == "__main__":
    main()
