"""What the limits of the failure checks are chosen by, and what the checks cost.

    python -m benchmarks.failure_limits alarms DATA...
    python -m benchmarks.failure_limits swings DATA [--eam EAM]
    python -m benchmarks.failure_limits cost DATA [--eam EAM]

``alarms``: every check on structures computed by DFT, as one trajectory for each composition; none should fire.
``swings``: one structure of each kind, heated from 300 to 6000 K and squeezed to a third of its volume by an EAM, which
is fitted to the data unless a file is given: how far its energy falls below and rises above that of the start.
``cost``: time of a run of the largest structure, repeated to 500 atoms, by an EAM with the checks of every tenth step
over that of the run without; interleaved, processor time, one thread.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import torch

from pretrain_mlip import PretrainedMLIP, fit_eam
from pretrain_mlip.dynamics.detection import first_failure
from pretrain_mlip.dynamics.failure import FailureSettings
from pretrain_mlip.dynamics.md import run_md
from pretrain_mlip.dynamics.protocols import HeatRun, MDSettings, SqueezeRun
from pretrain_mlip.structures.datasets import read_data

if TYPE_CHECKING:
    from ase import Atoms

ROUNDS, ATOMS = 7, 500


def _composition(atoms: Atoms) -> str:
    return atoms.get_chemical_formula()


def alarms(data: list[str]) -> None:
    frames = sorted(read_data(data), key=_composition)
    found = [
        failure.message()
        for _, group in groupby(frames, _composition)
        if (failure := first_failure(group, FailureSettings()))
    ]
    print(f"{len(frames)} structures, {len(found)} alarms", *found, sep="\n  ")


def swings(data: list[str], path: Path | None) -> None:
    frames = read_data(data)
    kinds = {atoms.info.get("config_type", "all"): atoms for atoms in reversed(frames)}
    eam = _eam(frames, path)
    for kind, atoms in kinds.items():
        for name, run in (("heat", HeatRun(duration_ps=1.0)), ("squeeze", SqueezeRun(duration_ps=1.0))):
            result = run_md(atoms, PretrainedMLIP.load(eam), run)
            energies = np.array(result.thermo.potential_energy) / len(atoms)
            falls, rises = energies[0] - energies.min(), energies.max() - energies[0]
            end = "completed" if result.failure is None else result.failure.message()
            print(f"{kind:24s} {name:8s} falls {falls:5.2f} rises {rises:5.2f} eV/atom; {end}", flush=True)


def cost(data: list[str], path: Path | None) -> None:
    torch.set_num_threads(1)
    frames = read_data(data)
    eam, atoms = _eam(frames, path), max(frames, key=len)
    while len(atoms) < ATOMS:
        atoms = atoms.repeat([2 if axis == np.argmin(atoms.cell.lengths()) else 1 for axis in range(3)])
    run = MDSettings(duration_ps=0.2, timestep=1.0)
    every = {"checked": FailureSettings(), "unchecked": FailureSettings.off()}
    times: dict[str, list[float]] = {name: [] for name in every}
    for _ in range(ROUNDS):
        for name, failure in every.items():
            start = time.process_time()
            run_md(atoms, PretrainedMLIP.load(eam), run, failure=failure)
            times[name].append(time.process_time() - start)
    ratios = [checked / unchecked for checked, unchecked in zip(*times.values(), strict=True)]
    step = 1e3 * median(times["unchecked"]) / run.steps
    print(
        f"{len(atoms)} atoms, {step:.2f} ms a step; with checks",
        f"{median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})",
    )


def _eam(frames: list[Atoms], path: Path | None) -> Path:
    if path is None:
        path = Path(tempfile.mkdtemp()) / "eam.json"
        fit_eam(frames).save(path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("alarms", "swings", "cost"))
    parser.add_argument("data", nargs="+", help="names of embedded sets, or files")
    parser.add_argument("--eam", type=Path, help="of these elements; fitted to the data otherwise")
    given = parser.parse_args()
    if given.what == "alarms":
        alarms(given.data)
    else:
        {"swings": swings, "cost": cost}[given.what](given.data, given.eam)


if __name__ == "__main__":
    main()
