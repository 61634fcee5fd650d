"""Processes that take only their own task with them, and end when nobody waits for them."""

from __future__ import annotations

import os
import time
from contextlib import closing
from pathlib import Path

import pytest

from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.parallel import run_in_processes


def work(task: str | Path) -> str:
    if isinstance(task, Path):  # a long task, which says who it is
        task.write_text(str(os.getpid()))
        time.sleep(600)
    if task == "die":
        os._exit(3)
    if task == "refuse":
        raise InputError("refused")
    if task == "fail":
        raise ArithmeticError("failed")
    return f"{task} done by one thread: {os.environ['OMP_NUM_THREADS']}"


def test_every_task_has_its_outcome() -> None:
    outcomes = dict(run_in_processes(work, ["a", "die", "fail", "b"], 2))
    assert (outcomes["a"], outcomes["b"]) == ("a done by one thread: 1", "b done by one thread: 1")
    assert isinstance(outcomes["die"], ComputationError)
    assert isinstance(outcomes["fail"], ArithmeticError)


def test_bad_input_is_raised() -> None:
    with pytest.raises(InputError, match="refused"):
        list(run_in_processes(work, ["refuse", "a"], 1))


def test_tasks_that_nobody_waits_for_end(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    with closing(run_in_processes(work, [pid, "fail"], 2)) as outcomes:
        for _, outcome in outcomes:
            assert isinstance(outcome, ArithmeticError)
            while not (pid.exists() and pid.read_text()):
                time.sleep(0.05)
            break
    deadline = time.monotonic() + 60  # far less than the task takes
    while _runs(int(pid.read_text())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(int(pid.read_text()))


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0]
