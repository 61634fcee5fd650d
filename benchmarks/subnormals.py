"""What numbers below the normal ones cost: times beside those where the processor takes them for zero.

    python -m benchmarks.subnormals

Training steps (forces in the loss) and calls of untrained networks on two structures of phosphorus and two of silica,
float32, one thread, processor time; as they are, and with ``torch.set_flush_denormal``, by turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch_geometric.data import Data

from pretrain_mlip import build_model, keys
from pretrain_mlip.graphs.graph import make_batch, make_graph
from pretrain_mlip.potentials.base import Potential
from pretrain_mlip.structures.datasets import read_data

NETWORKS: dict[str, dict[str, Any]] = {"cgcnn": {}, "torchmd_net": {"width": 64, "layers": 3}, "m3gnet": {}}
ROUNDS, CALLS = 4, 5


def milliseconds(call: Callable[[], object]) -> dict[bool, str]:
    """Not flushed and flushed -> smallest to largest mean of a round."""
    found: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(ROUNDS):
        for flush, times in found.items():
            torch.set_flush_denormal(flush)
            call()
            start = time.process_time()
            for _ in range(CALLS):
                call()
            times.append(1e3 * (time.process_time() - start) / CALLS)
    torch.set_flush_denormal(False)
    return {flush: f"{min(times):.0f} to {max(times):.0f}" for flush, times in found.items()}


def measure(title: str, network: Potential, batch: Data) -> None:
    def step() -> None:
        output = network(batch, create_graph=True)
        difference = output[keys.FORCES] - batch[keys.FORCES]
        (difference.square().mean() + output[keys.ENERGY].square().mean()).backward()

    for what, call in (("training step", step), ("forces", lambda: network(batch))):
        times = milliseconds(call)
        print(f"{title} {what:14s} {times[False]:>12s} ms, flushed {times[True]:>12s}", flush=True)


def main() -> None:
    torch.set_num_threads(1)
    for data in ("phosphorus_mini", "silica_mini"):
        structures = [read_data([data])[number] for number in (5, 60)]
        for name, hyperparameters in NETWORKS.items():
            torch.manual_seed(0)
            network = build_model(name, sorted(set(structures[0].symbols)), **hyperparameters)
            batch = make_batch([make_graph(atoms, network.cutoff, labels=True) for atoms in structures])
            measure(f"{data:16s} {name:12s}", network, batch)


if __name__ == "__main__":
    main()
