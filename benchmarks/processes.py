"""A training by one process and by two at the same global batch: seconds per epoch, and losses.

python -m benchmarks.processes [ROUNDS], with OMP_NUM_THREADS=1
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

from pretrain_mlip.potentials.base import ReferenceEnergies
from pretrain_mlip.potentials.checkpoint import read_checkpoint
from pretrain_mlip.potentials.networks import build_model
from pretrain_mlip.structures.datasets import load_dataset
from pretrain_mlip.structures.reference_energies import fit_reference_energies
from pretrain_mlip.training.loop import Training
from pretrain_mlip.training.processes import joined, run_together
from pretrain_mlip.training.settings import TrainingSettings
from pretrain_mlip.training.stages import residual_graphs

EPOCHS, BATCH, TRAINED, VALIDATED = 6, 8, 48, 12


def train(name: str, folder: Path) -> None:
    frames = load_dataset("silica_mini")[: TRAINED + VALIDATED]
    energies = fit_reference_energies(frames)
    network = build_model(name, list(energies), seed=1)
    network.set_scales(5.0, 30.0)
    graphs = residual_graphs(frames, network.cutoff, ReferenceEnergies(energies))
    settings = TrainingSettings(epochs=EPOCHS, batch_size=BATCH)
    Training(network, graphs[:TRAINED], graphs[TRAINED:], settings, folder, fabric=joined("cpu")).run()


def main(rounds: int) -> None:
    print("network processes | seconds per epoch: median, least | loss of the epochs 1, 3, 6 | validation forces")
    for name in ("cgcnn", "m3gnet"):
        seconds: dict[int, list[float]] = {1: [], 2: []}
        histories = {}
        for _ in range(rounds):  # in turn, so that what else the machine does is shared
            for processes in seconds:
                with tempfile.TemporaryDirectory() as folder:
                    run_together(train, (name, Path(folder)), processes)
                    history = read_checkpoint(Path(folder) / "last.pt")["training"]["history"]
                seconds[processes] += [row["seconds"] for row in history[1:]]
                histories[processes] = history
        for processes, found in seconds.items():
            history = histories[processes]
            losses = ", ".join(f"{history[epoch - 1]['loss']:.6f}" for epoch in (1, 3, 6))
            times = f"{statistics.median(found):.3f}, {min(found):.3f}"
            print(f"{name} {processes} | {times} | {losses} | {history[-1]['val_forces_mae']:.6f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
