"""Pretraining sets that are larger than memory: from perturbed silica to a training that reads graphs from disk.

    python -m benchmarks.store [STRUCTURES] [FOLDER]

Structures are perturbed copies of the embedded silica_mini (24 atoms), labelled by an EAM that is fitted to it. Every
step runs in a process of its own, with one thread, and tells its wall time, its processor time (of its workers too) and
its largest memory. Times of training steps are processor time, the median of all steps. Files go to a temporary folder
that is removed, or stay in FOLDER. About 20 minutes for 100,000 structures.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from multiprocessing import active_children
from pathlib import Path

from pretrain_mlip.files import read_json
from pretrain_mlip.graphs.sequences import Joined
from pretrain_mlip.graphs.store import PLAN, GraphStore
from pretrain_mlip.pipeline.preparation import teacher_of
from pretrain_mlip.potentials.base import ReferenceEnergies
from pretrain_mlip.potentials.eam.fit import fit_eam
from pretrain_mlip.potentials.eam.storage import load_eam
from pretrain_mlip.potentials.networks import build_model
from pretrain_mlip.structures.datasets import load_dataset
from pretrain_mlip.structures.io import read_structures, write_structures
from pretrain_mlip.structures.perturbation import PerturbationSettings, perturb
from pretrain_mlip.training.loop import Training
from pretrain_mlip.training.settings import TrainingSettings
from pretrain_mlip.training.stages import residual_graphs
from pretrain_mlip.training.stores import build_store

CUTOFF = 5.0  # Å
BASELINE = ReferenceEnergies({"O": -327.0, "Si": -327.0})
SOURCE, EAM = "train.extxyz", "eam.json"
STEPS = {"cgcnn": 300, "m3gnet": 24, "torchmd_net": 16}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("structures", nargs="?", type=int, default=100_000)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--step", help="what a process of this script does")
    options = parser.parse_args()
    if options.step:
        step(options.step, options.folder, options.structures)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        training = [f"train:{name}:{size}" for name in STEPS for size in (2, 16)]
        for name in ("fit", "perturb", "read", "lists", "build:1", "build:2", "build:2", "open", *training):
            subprocess.run(  # noqa: S603
                [sys.executable, "-m", "benchmarks.store", str(options.structures), str(folder), "--step", name],
                check=True,
                env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            )


def step(name: str, folder: Path, structures: int) -> None:
    what, *arguments = name.split(":")
    before = largest_memory()
    computed = sum(os.times()[:4])
    start = time.perf_counter()
    notes = STEP[what](folder, structures, *arguments)
    seconds = time.perf_counter() - start
    for worker in active_children():  # what they used is known when they have ended
        worker.join()
    computed = sum(os.times()[:4]) - computed
    memory = f"{largest_memory():5.0f} MB ({before:.0f} at the start)"
    print(f"{name:16s} {seconds:7.1f} s, {computed:7.1f} s of processor time, {memory}  {notes}", flush=True)


def largest_memory() -> float:
    """MB, of this process or the largest of those that it started."""
    used = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return max(used) / 1024


def fit(folder: Path, structures: int) -> str:  # noqa: ARG001  # every step takes the same
    fit_eam(load_dataset("silica_mini")).save(folder / EAM)
    return "EAM"


def make(folder: Path, structures: int) -> str:
    eam, parents = load_eam(folder / EAM), load_dataset("silica_mini")
    default = PerturbationSettings()
    copies = -(-structures // (len(parents) * default.rounds))
    made = perturb(
        parents, default.model_copy(update={"copies": copies}), teacher=teacher_of(eam), cutoff=eam.cutoff
    ).frames[:structures]
    write_structures(folder / SOURCE, made)
    return f"{len(made)} structures perturbed, labelled and written, {(folder / SOURCE).stat().st_size / 1e6:.0f} MB"


def read(folder: Path, structures: int) -> str:  # noqa: ARG001
    return f"{len(read_structures(folder / SOURCE))} structures read"


def lists(folder: Path, structures: int) -> str:  # noqa: ARG001
    graphs = residual_graphs(read_structures(folder / SOURCE, index="::20"), CUTOFF, BASELINE)
    return f"{len(graphs)} graphs in memory"


def build(folder: Path, structures: int, workers: str) -> str:
    store = folder / f"store{workers}"
    again = store.exists()
    build_store(store, folder / SOURCE, CUTOFF, BASELINE, workers=int(workers))
    size = sum(path.stat().st_size for path in store.iterdir())
    parts = len(read_json(store / PLAN)["parts"])
    found = f"{size / 1e6:.0f} MB, {size / structures:.0f} bytes each, {parts} parts"
    return "nothing to do" if again else found


def open_and_read(folder: Path, structures: int) -> str:  # noqa: ARG001
    start = time.perf_counter()
    store = GraphStore.open(folder / "store2")
    opened = time.perf_counter()
    for index in range(0, len(store), 10):
        store[index * 7919 % len(store)]  # all over the files
    rate = len(range(0, len(store), 10)) / (time.perf_counter() - opened)
    edges = store.edges.sum() / len(store)
    return f"opened in {opened - start:.2f} s, {rate:.0f} graphs read per second, {edges:.0f} edges each"


def train(folder: Path, structures: int, model: str, batch_size: str) -> str:  # noqa: ARG001
    """Time per step, and what of it is reading, decoding and making the batch."""
    store, size = GraphStore.open(folder / "store2"), int(batch_size)
    network = build_model(model, BASELINE.elements, seed=0)
    network.set_scales(5.0, float(store.edges.mean()) / 24)
    with tempfile.TemporaryDirectory() as temporary:
        settings = TrainingSettings(epochs=1, batch_size=size)
        training = Training(network, Joined(store), store[:2], settings, Path(temporary))
        batches = iter(training.loader)
        training.module.train()
        loading, computing = [], []
        for _ in range(min(STEPS[model] // (1 if size == 2 else 4), len(training.batches))):
            start = time.process_time()
            batch = next(batches)
            loaded = time.process_time()
            training._step(batch)
            computing.append(time.process_time() - loaded)
            loading.append(loaded - start)
    load, compute = statistics.median(loading[1:]), statistics.median(computing[1:])  # the first plans the epoch
    rate = 3600 / (len(store) / size * (load + compute))
    share = load / (load + compute)
    return f"{1e3 * load:.2f} of {1e3 * (load + compute):.1f} ms a step: {share:.1%}; {rate:.2f} epochs per hour"


STEP = {
    "fit": fit,
    "perturb": make,
    "read": read,
    "lists": lists,
    "build": build,
    "open": open_and_read,
    "train": train,
}

if __name__ == "__main__":
    main()
