"""Processes that take only their own task with them, and end when nobody waits for them."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import closing
from multiprocessing import active_children
from pathlib import Path

import pytest

from pretrain_mlip import parallel
from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.parallel import Workers, run_in_processes
from pretrain_mlip.stopping import stop_signals


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


def save_when_stopped(task: tuple[Path, float]) -> None:
    state, seconds = task
    with stop_signals() as asked:
        state.write_text(str(os.getpid()))
        while not asked:
            time.sleep(0.01)
        time.sleep(seconds)  # takes its time
        state.write_text("saved")
        raise KeyboardInterrupt


def test_where_one_worker_is_stopped_the_others_are_awaited(tmp_path: Path) -> None:
    """A scheduler of jobs sends SIGTERM to every process, and they hear it one after the other."""
    states = [tmp_path / "quick", tmp_path / "slow"]

    def stop_the_quick() -> None:
        while not all(state.exists() and state.read_text() for state in states):
            time.sleep(0.01)
        os.kill(int(states[0].read_text()), signal.SIGTERM)

    with Workers(2) as workers:
        thread = threading.Thread(target=stop_the_quick)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            list(workers.run(save_when_stopped, list(zip(states, (0.0, 1.0), strict=True)), stoppable=True))
        thread.join()
    assert [state.read_text() for state in states] == ["saved", "saved"]


def die_once(path: Path) -> int:
    if not path.exists():
        path.write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    return 1


def test_a_task_whose_worker_is_killed_is_computed_again(tmp_path: Path) -> None:
    tasks = [tmp_path / name for name in "abcd"]
    tasks[0].write_text("")
    found = list(run_in_processes(die_once, tasks, 2))
    assert sorted(found) == [(task, 1) for task in tasks]


def test_workers_of_a_cluster_that_is_there_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Workers(1) as cluster:
        address = cluster.client.scheduler_info()["address"]
        for _ in range(2):  # a campaign leaves it running
            with Workers(scheduler=address, folder=tmp_path) as workers:
                assert workers.several
                assert dict(workers.run(work, ["a"])) == {"a": "a done by one thread: 1"}
        with pytest.raises(InputError, match=r"does not see this folder; put it on a file system that all share"):
            Workers(scheduler=address, folder=tmp_path / "absent").__enter__()
        monkeypatch.setattr("pretrain_mlip.__version__", "0.0")
        with pytest.raises(InputError, match=r"has version .* of pretrain-mlip, this is 0\.0"):
            Workers(scheduler=address).__enter__()


def test_an_address_without_a_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "CONNECTING", 0.5)
    with pytest.raises(InputError, match="no Dask scheduler with workers there"):
        Workers(scheduler="tcp://127.0.0.1:9").__enter__()
