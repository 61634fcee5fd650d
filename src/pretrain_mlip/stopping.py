"""How a computation is asked to stop: by signals, or, in a task of a Dask worker, by whoever started it."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_REPEATED = 1.0  # seconds: SLURM and torchrun pass on at once what a process has already got
_requested: set[str] = set()  # keys of tasks; in a worker
_everything = threading.Event()  # the worker itself got SIGTERM


class StopRequest:
    """True once somebody asked."""

    def __init__(self) -> None:
        self.since: float | None = None

    def __bool__(self) -> bool:
        return self.since is not None

    def note(self, number: int, frame: FrameType | None) -> None:
        """A signal, the second of which ends at once."""
        del number, frame
        if self.since is None:
            self.since = time.monotonic()
        elif time.monotonic() - self.since > _REPEATED:
            raise KeyboardInterrupt


class _OfTask(StopRequest):
    """What a task of a Dask worker is asked for."""

    def __init__(self, worker: Any, key: str) -> None:
        super().__init__()
        self.worker, self.key = worker, key

    def __bool__(self) -> bool:
        """Whether it is to stop.

        Raises:
            KeyboardInterrupt: nobody wants its result: who does may have been killed, and the run resumed elsewhere,
                where nothing may be written any more.
        """
        state = self.worker.state.tasks.get(self.key)
        if state is None or state.state != "executing":
            raise KeyboardInterrupt
        return self.key in _requested or _everything.is_set()


def request_stop(keys: Iterable[str] | None) -> None:
    """Ask tasks of this worker to stop; None: all of them."""
    if keys is None:
        _everything.set()
    else:
        _requested.update(keys)


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Collect SIGTERM and Ctrl-C instead of ending at once; a second one ends at once.

    Where this is not the main thread, only what is asked of a task by ``request_stop`` is heard.
    """
    if threading.current_thread() is not threading.main_thread():
        yield _of_this_task()
        return
    request = StopRequest()
    before = {number: signal.signal(number, request.note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _of_this_task() -> StopRequest:
    if "distributed" in sys.modules:
        from distributed import get_worker

        try:
            worker = get_worker()
            return _OfTask(worker, str(worker.get_current_task()))
        except ValueError:  # no worker
            pass
    return StopRequest()
