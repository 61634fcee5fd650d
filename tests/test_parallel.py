"""Processes that take only their own task with them, and end when nobody waits for them."""

from __future__ import annotations

import os
import time
from contextlib import closing
from multiprocessing import active_children
from pathlib import Path

import pytest

from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.parallel import run_in_processes


def work(task: str | Path) -> str:
    if isinstance(task, Path):  # a long task, which says how far it came
        task.write_text("begun")
        time.sleep(20)
        task.write_text("ended")
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
    progress = tmp_path / "progress"
    with closing(run_in_processes(work, [progress, "fail"], 2)) as outcomes:
        for _, outcome in outcomes:
            assert isinstance(outcome, ArithmeticError)
            while not progress.exists():
                time.sleep(0.05)
            break
    while active_children():
        time.sleep(0.05)
    assert progress.read_text() == "begun"
