"""Tasks in processes of their own, where a process that dies takes only its own task with it."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import Pipe, get_context
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, TypeVar

from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.memory import keep_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
    from multiprocessing.connection import Connection

T = TypeVar("T")
R = TypeVar("R")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def run_in_processes(
    function: Callable[[T], R], tasks: Sequence[T], workers: int
) -> Generator[tuple[T, R | Exception]]:
    """Apply a function to tasks in single-threaded spawned processes.

    Each of ``workers`` threads owns one process: a common pool could not tell which of its tasks killed it.

    Args:
        function: importable by name from a fresh process.
        tasks: picklable.
        workers: number of processes at a time.

    Yields:
        A task with its result, or with the exception that ended it; ComputationError when its process died. In order
        of completion. A caller that closes the generator ends the processes at once, whatever they are at.

    Raises:
        InputError: the function raised it; tasks that wait are dropped.
    """
    own = threading.local()
    pools: list[ProcessPoolExecutor] = []
    listening, alive = Pipe(duplex=False)

    def run(task: T) -> R | Exception:
        if getattr(own, "pool", None) is None:
            own.pool = ProcessPoolExecutor(
                max_workers=1, mp_context=get_context("spawn"), initializer=_set_up_worker, initargs=(listening,)
            )
            pools.append(own.pool)
        try:
            return own.pool.submit(function, task).result()
        except InputError:
            raise
        except BrokenProcessPool:
            own.pool = None
            return ComputationError("the worker process died (out of memory, or a crash in compiled code)")
        except Exception as error:  # noqa: BLE001  # handed to the caller, who knows what it means
            return error

    with environment(thread_variables(1)), ThreadPoolExecutor(min(workers, max(1, len(tasks)))) as threads:
        futures = {threads.submit(run, task): task for task in tasks}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            for future in futures:
                future.cancel()  # after an error or an interruption: what has not begun never will
            for pool in pools:
                pool.shutdown(wait=False, cancel_futures=True)
            alive.close()
            listening.close()


def _set_up_worker(listening: Connection) -> None:
    end_with_parent(listening)
    keep_memory()


def end_with_parent(listening: Connection) -> None:
    """End this process when the other end of a pipe is closed: nobody wants a result, or its parent was killed.

    A child that went on would also write into a run that may have been resumed meanwhile.
    """

    def watch() -> None:
        wait([listening])  # nothing is ever sent, so this is the end of the pipe
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def thread_variables(threads: int) -> dict[str, str]:
    """What a process reads when it loads numpy and torch, which is before any code of ours runs there."""
    return dict.fromkeys(THREAD_VARIABLES, str(threads))


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
