"""Times one program in its own environment; reads requests, one JSON object a line, and answers in the same way.

    python -m benchmarks.peers.worker MODEL
    {"do": "call", "structure": "c192", "calls": 3}              energy, forces, stress through ASE
    {"do": "train", "structure": "c192", "batch": 4, "steps": 4}   steps of Adam on energies and forces

Answers hold seconds of processor time per call or step, and for training the memory it needs on top of the loaded
program. Atoms move by 0.01 Å between calls and every program finds its neighbours as it does by default.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import all_changes
from benchmarks.peers.structures import labelled, structure

MODELS: dict[str, tuple[str, dict[str, Any]]] = {  # name -> module here, arguments of its functions
    "matgl:m3gnet": ("matgl_m3gnet", {}),
    "torchmd-net:et": ("torchmd_net_et", {}),
    "graph-pes:schnet": ("graph_pes_schnet", {}),
}
for _name in ("cgcnn", "m3gnet", "torchmd_net"):
    MODELS[f"ours:{_name}"] = ("ours", {"name": _name})
    MODELS[f"ours:{_name} compiled"] = ("ours", {"name": _name, "compile_it": True})
    MODELS[f"ours:{_name} 2 GiB"] = ("ours", {"name": _name, "memory_limit": 2.0})
    MODELS[f"ours:{_name} memory returned"] = ("ours", {"name": _name, "keep": False})


def resident(field: str) -> float:
    """MB of memory, VmRSS now or VmHWM at most since ``forget_peak``."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(float(line.split()[1]) / 1e3 for line in lines if line.startswith(field))


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


class Caller:
    """Keeps the calculator and the atoms of each structure."""

    def __init__(self, calculator: Any) -> None:
        self.calculator = calculator
        self.atoms: dict[str, Atoms] = {}
        self.rng = np.random.default_rng(0)
        self.last = ""

    def __call__(self, name: str, calls: int) -> dict[str, list[float]]:
        if name not in self.atoms:
            self.atoms[name] = structure(name)
        atoms, seconds, wall = self.atoms[name], [], []
        atoms.calc = self.calculator
        fresh = name != self.last  # the first call of a size asks the system for memory, and is not counted
        for number in range(calls + fresh):
            atoms.positions += self.rng.normal(scale=0.01, size=atoms.positions.shape)
            start, clock = time.process_time(), time.perf_counter()
            changes = ["positions"] if name == self.last else list(all_changes)
            self.calculator.calculate(atoms, ["energy", "forces", "stress"], changes)
            self.last = name
            if number >= fresh:
                seconds.append(time.process_time() - start)
                wall.append(time.perf_counter() - clock)
        if not np.isfinite(self.calculator.results["forces"]).all():
            raise FloatingPointError(name)
        return {"seconds": seconds, "wall": wall}


def main(model: str) -> None:
    warnings.filterwarnings("ignore")
    module, arguments = MODELS[model]
    program = importlib.import_module(f"benchmarks.peers.{module}")
    torch.manual_seed(0)
    caller = None
    print(json.dumps({"ready": model, "threads": torch.get_num_threads()}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "call":
            if caller is None:
                caller = Caller(program.calculator(**arguments))
                caller(request["structure"], 2)
            answer = caller(request["structure"], request["calls"]) | {"rss": resident("VmRSS")}
        else:
            step = program.trainer(labelled(request["structure"], request["batch"]), **arguments)
            before = resident("VmRSS")
            forget_peak()
            seconds = []
            for _ in range(request["steps"] + 1):
                start = time.process_time()
                step()
                seconds.append(time.process_time() - start)
            answer = {"seconds": seconds[1:], "memory": resident("VmHWM") - before}
        print("answer " + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
