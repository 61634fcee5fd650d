"""Our networks beside their reference implementations: energy, forces and stress per call, and training steps.

Every program runs in a process of its own, in its own environment, and they are asked in turn, so that all see the same
machine. One thread unless --threads says otherwise; processor time; median of all calls.

    python -m benchmarks.networks calls --matgl ve_matgl/bin/python --torchmd-net ve_tmd/bin/python --graph-pes ...
    python -m benchmarks.networks train --matgl ... --torchmd-net ...
    python -m benchmarks.networks sizes          time per atom from 192 to 17,496 atoms, ours alone, also with a memory
                                                 limit of 2 GiB, and without keep_memory()
    python -m benchmarks.networks threads        one and two threads at 648 atoms, wall time, ours alone

How to make the environments stands at the top of each file in benchmarks/peers/.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PEERS = {"m3gnet": "matgl:m3gnet", "torchmd_net": "torchmd-net:et", "cgcnn": "graph-pes:schnet"}
NOT_ASKED = {"train": {"graph-pes:schnet"}, "sizes": set(PEERS.values())}  # what is measured of ours alone


class Program:
    """One worker process."""

    def __init__(self, model: str, python: str, threads: int) -> None:
        self.model = model
        environment = os.environ | {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        self.process = subprocess.Popen(  # noqa: S603
            [python, "-m", "benchmarks.peers.worker", model],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
            cwd=Path(__file__).parents[1],
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        stdin, stdout = self.process.stdin, self.process.stdout
        if stdin is None or stdout is None:
            raise RuntimeError("no pipes")
        stdin.write(json.dumps(request) + "\n")
        stdin.flush()
        for line in stdout:  # programs print things of their own
            if line.startswith("answer "):
                return json.loads(line.removeprefix("answer "))
        raise RuntimeError(f"{self.model} ended without an answer; run python -m benchmarks.peers.worker by hand")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def compare(programs: Sequence[Program], rounds: int, key: str, **request: Any) -> dict[str, dict[str, float]]:
    """Median seconds and largest memory (MB) of each program, asked in turn."""
    seconds: dict[str, list[float]] = {program.model: [] for program in programs}
    memory: dict[str, float] = {}
    for _ in range(rounds):
        for program in programs:
            answer = program.ask(**request)
            seconds[program.model] += answer["seconds"]
            memory[program.model] = max(memory.get(program.model, 0.0), answer[key])
    return {model: {"seconds": statistics.median(values), "memory": memory[model]} for model, values in seconds.items()}


def table(title: str, atoms: int, found: dict[str, dict[str, float]], peer: str) -> None:
    print(f"\n{title}")
    for model, values in found.items():
        line = f"  {model:28s} {1e6 * values['seconds'] / atoms:8.1f} µs/atom {values['memory']:8.0f} MB"
        if peer in found and model != peer:
            ratio = values["seconds"] / found[peer]["seconds"]
            line += f"   time {ratio:.2f}, memory {values['memory'] / found[peer]['memory']:.2f} of {peer}"
        print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["calls", "train", "sizes", "threads"])
    for peer in ("matgl", "torchmd-net", "graph-pes"):
        parser.add_argument(f"--{peer}", help=f"python of the environment with {peer}")
    parser.add_argument("--models", nargs="+", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--structures", nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-compile", action="store_true")
    options = parser.parse_args()
    pythons = {"matgl": options.matgl, "torchmd-net": options.torchmd_net, "graph-pes": options.graph_pes}
    for model in options.models:
        peer = PEERS[model]
        kinds = ["", *([] if options.no_compile else [" compiled"])]
        if options.what == "sizes":
            kinds = ["", " 2 GiB", " memory returned"]
        ours = [f"ours:{model}{kind}" for kind in kinds]
        if options.what == "threads":
            for name in ours:
                _threads(name, options.rounds)
            continue
        python = pythons[peer.split(":")[0]]
        if python and peer not in NOT_ASKED.get(options.what, ()):
            ours.append(peer)
        # Large structures take most of the memory: one program after the other
        for names in [[name] for name in ours] if options.what == "sizes" else [ours]:
            programs = [Program(name, python if name == peer else sys.executable, options.threads) for name in names]
            try:
                _measure(options, programs, peer)
            finally:
                for program in programs:
                    program.close()


def _measure(options: argparse.Namespace, programs: Sequence[Program], peer: str) -> None:
    if options.what == "train":
        for name in options.structures or ["c192"]:
            batch = 4
            request = {"do": "train", "structure": name, "batch": batch, "steps": 4}
            found = compare(programs, options.rounds, "memory", **request)
            table(f"training step, {name}, batch of {batch}", batch * int(name[1:]), found, peer)
        return
    default = ["c192", "c648", "c1536", "c5184", "c17496"] if options.what == "sizes" else ["q72", "c192", "c648"]
    for name in options.structures or default:
        request = {"do": "call", "structure": name, "calls": 1 if int(name[1:]) > 5000 else 4}
        table(name, int(name[1:]), compare(programs, options.rounds, "rss", **request), peer)


def _threads(name: str, rounds: int) -> None:
    programs = [Program(name, sys.executable, threads) for threads in (1, 2)]
    walls: list[list[float]] = [[], []]
    for _ in range(rounds):
        for number, program in enumerate(programs):
            walls[number] += program.ask(do="call", structure="c648", calls=12)["wall"]
    one, two = (statistics.median(wall) for wall in walls)
    print(f"{name}: {1e3 * one:.0f} ms on one thread, {1e3 * two:.0f} on two, {one / two:.2f} times", flush=True)
    for program in programs:
        program.close()


if __name__ == "__main__":
    main()
