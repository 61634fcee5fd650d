"""What the fit of the EAM reaches on public data, and what it costs: errors on test frames, time, memory.

    python benchmarks/eam_fit.py NAME [seeds] [KEY=VALUE ...]

NAME: nickel (mlearn, its training set), zeolites_300 (300 training frames), zeolites (all of them; both in
PRETRAIN_MLIP_DATA), silica_mini, phosphorus_mini (embedded, split as given or a fifth held out), demo (silica_mini as
the demonstration splits it). KEY=VALUE are settings of the EAM, such as form=fs. Test frames are those of the files.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import resource
import sys
import time
from importlib.resources import files
from pathlib import Path

import numpy as np
from ase import Atoms

from pretrain_mlip import fit_eam
from pretrain_mlip.config import RunConfig
from pretrain_mlip.potentials.eam.settings import EAMSettings
from pretrain_mlip.settings import read_settings
from pretrain_mlip.structures.datasets import read_data
from pretrain_mlip.structures.splits import split_structures

FILES = {"nickel": "nickel_mlearn.extxyz.gz", "zeolites": "silica_zeolites.extxyz.gz"}
GPA = 160.21766


def data(name: str) -> tuple[list[Atoms], list[Atoms]]:
    """Training and test frames."""
    kind, _, count = name.partition("_")
    if kind in FILES:
        frames = read_data([str(Path(os.environ["PRETRAIN_MLIP_DATA"]) / FILES[kind])])
        train = [atoms for atoms in frames if atoms.info["split"] == "train"]
        order = np.random.default_rng(0).permutation(len(train))[: int(count or len(train))]
        return [train[i] for i in order], [atoms for atoms in frames if atoms.info["split"] == "test"]
    if name == "demo":
        config = read_settings(RunConfig, files("pretrain_mlip") / "data" / "demo.yaml")  # type: ignore[arg-type]
        splits = split_structures(read_data(config.data.source), config.data.split)
        return splits.train, splits.test
    splits = split_structures(read_data([name]))
    return splits.train, [*splits.val, *splits.test]


def main(name: str, seeds: int, options: list[str]) -> None:
    train, test = data(name)
    size = np.mean([len(atoms) for atoms in train])
    print(f"{name}: {len(train)} training frames of {size:.0f} atoms, {len(test)} test frames")
    for seed in range(seeds):
        settings = read_settings(EAMSettings, None, [*options, f"seed={seed}"])
        start = time.perf_counter(), time.process_time()
        eam = fit_eam(train, settings=settings, held_out=test)
        wall, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
        errors = eam.report["held_out"]
        ratio = errors["forces_rmse"] / errors["forces_rms"]
        stress = "" if errors["stress_rmse"] is None else f", {GPA * errors['stress_rmse']:.2f} GPa"
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"seed {seed}, eam/{eam.form}: RMSE {1e3 * errors['energy_rmse']:.1f} meV/atom, ", end="")
        print(f"{errors['forces_rmse']:.4f} eV/Å ({ratio:.3f} of RMS){stress}; loss {eam.report['loss'][-1]:.4f}")
        if eam.report["stress_offset"] is not None:
            print(f"    its pressure is {-GPA * eam.report['stress_offset']:+.2f} GPa off that of the training labels")
        print(f"    {wall:.0f} s, {cpu:.0f} s of processor time, {memory:.1f} GB")
        for pair, found in eam.report["audit"].items():
            sound = "repels at contact" if found["repulsive"] and found["monotone"] else "NO WALL"
            print(f"    {pair}: {sound}, {found['wall_0.5']:.0f} eV at 0.5 Å, {found['wall_1.0']:.0f} eV at 1.0 Å")


if __name__ == "__main__":
    words = sys.argv[1:]
    main(words[0], int(words[1]) if len(words) > 1 else 1, words[2:])
