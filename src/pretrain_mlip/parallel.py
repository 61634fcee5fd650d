"""Tasks in worker processes of one thread each, through Dask: on this machine, or wherever a Dask cluster of yours is.

A process that dies takes only its own task with it, which is then computed again by another.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections import deque
from contextlib import contextmanager, nullcontext, suppress
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.memory import keep_memory
from pretrain_mlip.stopping import request_stop, stop_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
    from multiprocessing.connection import Connection

    from distributed import Client, Future, LocalCluster

T = TypeVar("T")
R = TypeVar("R")
log = logging.getLogger(__name__)
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_SET_BY_DASK = (*THREAD_VARIABLES, "PYTHONHASHSEED", "__DASK_PARENT_PID")  # here, for its children, and left behind
# Workers are killed at the end, and what compiled code has left open is not worth a warning
_QUIET = {"PYTHONWARNINGS": "ignore:resource_tracker:UserWarning"}
GRACE = 30.0  # seconds that tasks have to end in after they are asked to stop
CONNECTING = 30.0  # seconds that a scheduler may take to answer
FIRST_WORKER = 300.0  # seconds that a cluster of the user's has to bring its first worker
DASK: dict[str, Any] = {
    "distributed.scheduler.allowed-failures": 0,  # Dask also blames tasks that wait; ours are tried again alone
    # Dask's own list adds a malloc that gives memory back after every batch, which doubles the time of one
    "distributed.nanny.pre-spawn-environ": dict.fromkeys(THREAD_VARIABLES, "1"),
    "distributed.worker.profile.enabled": False,  # a tenth of the time
    "distributed.admin.large-graph-warning-threshold": "1TB",  # a single very large structure is no mistake
    "distributed.comm.timeouts.connect": "60s",  # processes are slow to start on busy machines
}


class Workers:
    """Worker processes for tasks of all kinds; those of this machine start at the first use, and end with the block.

    Raises:
        InputError: at the beginning of the block, see ``client``.
    """

    def __init__(self, number: int = 1, scheduler: str | None = None, folder: Path | None = None) -> None:
        """Describe the workers.

        Args:
            number: processes on this machine.
            scheduler: address of a Dask scheduler, whose workers are taken instead.
            folder: what tasks read and write; workers elsewhere have to see it.
        """
        self.number, self.scheduler, self.folder = number, scheduler, folder
        self._cluster: LocalCluster | None = None
        self._client: Client | None = None
        self._environment: dict[str, str | None] = {}

    @property
    def several(self) -> bool:
        """Whether tasks go to other processes at all."""
        return self.number > 1 or self.scheduler is not None

    @property
    def client(self) -> Client:
        """The client of Dask.

        Raises:
            InputError: nothing answers at the address of the scheduler, it has no workers, or they lack something.
        """
        if self._client is None:
            if self.scheduler is None:
                self._environment = {name: os.environ.get(name) for name in _SET_BY_DASK}
                self._cluster = _local_cluster(self.number)
                self._client = _client(self._cluster)
            else:
                self._client = _connected(self.scheduler, self.folder)
            self._client.register_plugin(_set_up_plugin())
        return self._client

    def run(
        self, function: Callable[[T], R], tasks: Sequence[T], *, stoppable: bool = False
    ) -> Generator[tuple[T, R | Exception]]:
        """Apply a function to tasks.

        Args:
            function: importable by name from a fresh process.
            tasks: picklable.
            stoppable: the function looks at ``stop_signals``: SIGTERM and Ctrl-C are passed on to it, and awaited.

        Yields:
            A task with its result, or with the exception that ended it; ComputationError when its process died, twice.
            In order of completion. A caller that closes the generator ends the processes of this machine at once,
            whatever they are at.

        Raises:
            InputError: the function raised it, tasks that wait are dropped; or see ``client``.
            KeyboardInterrupt: tasks were asked to stop.
        """
        with stop_signals() if stoppable else nullcontext([]) as asked:
            campaign = _Campaign(self.client, function, tasks)
            try:
                while campaign.unfinished:
                    yield from campaign.finished()
                    if asked:
                        campaign.stop()
                        raise KeyboardInterrupt
            finally:
                if campaign.running:
                    self.close()

    def close(self) -> None:
        """End the processes of this machine at once, and leave others alone."""
        client, cluster, self._client, self._cluster = self._client, self._cluster, None, None
        if cluster is not None:
            for nanny in cast("Any", cluster.workers).values():
                nanny.auto_restart = False
                if nanny.pid is not None:
                    with suppress(ProcessLookupError):  # it has just died by itself
                        os.kill(nanny.pid, signal.SIGKILL)
        if client is not None:
            client.close()
        if cluster is not None:
            cluster.close()
            _set_environment(self._environment)

    def __enter__(self) -> Workers:
        if self.scheduler is not None:
            _ = self.client  # refused now, not after an hour
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Campaign:
    """Tasks on their way: never more than there are workers, so that one that dies is known by its task."""

    def __init__(self, client: Client, function: Callable[[Any], Any], tasks: Sequence[Any]) -> None:
        self.client, self.function = client, function
        self.waiting = deque(tasks)
        self.suspects: deque[Any] = deque()
        self.running: dict[Future, Any] = {}
        self.alone = False

    @property
    def unfinished(self) -> bool:
        return bool(self.waiting or self.running or self.suspects)

    def finished(self) -> Iterator[tuple[Any, Any]]:
        """Start what there is room for, and give what has ended within a moment."""
        from distributed import KilledWorker, wait

        while self.waiting and not self.alone and len(self.running) < max(1, _threads(self.client)):
            self._start(self.waiting.popleft())
        if self.suspects and not self.running:
            self.alone = True
            self._start(self.suspects.popleft())
        try:
            done = cast("Any", wait(list(self.running), timeout=0.2, return_when="FIRST_COMPLETED")).done
        except TimeoutError:
            return
        for future in done:
            task, alone = self.running.pop(future), self.alone
            self.alone = False
            try:
                value, error = future.result()
            except KilledWorker:
                if alone:
                    died = "the worker process died (out of memory, or a crash in compiled code), and so did another"
                    yield task, ComputationError(died)
                else:
                    log.warning("a worker process died; its task is computed again by another")
                    self.suspects.append(task)
                continue
            if isinstance(error, KeyboardInterrupt):  # its worker got SIGTERM, and the others do about now
                self.stop()
            if isinstance(error, InputError | KeyboardInterrupt):
                raise error
            yield task, value if error is None else error

    def stop(self) -> None:
        """Ask what runs to stop, and wait for it, for a while."""
        self.waiting.clear()
        self.suspects.clear()
        self.client.run(request_stop, [future.key for future in self.running])
        deadline = time.monotonic() + GRACE
        while self.running and time.monotonic() < deadline:
            for future in [future for future in self.running if future.done()]:
                del self.running[future]
            time.sleep(0.05)

    def _start(self, task: Any) -> None:
        self.running[self.client.submit(_call, self.function, task, pure=False)] = task


def run_in_processes(
    function: Callable[[T], R], tasks: Sequence[T], workers: int
) -> Generator[tuple[T, R | Exception]]:
    """``Workers.run`` with workers of its own."""
    with Workers(workers) as own:
        yield from own.run(function, tasks)


def _call(function: Callable[[T], R], task: T) -> tuple[R | None, BaseException | None]:
    """What a task gives, in a worker; errors are values, which Dask does not log."""
    try:
        return function(task), None
    except BaseException as error:  # noqa: BLE001  # handed to the caller, who knows what it means
        return None, error


def _threads(client: Client) -> int:
    return sum(cast("dict[str, int]", client.nthreads()).values())


def _set_up_plugin() -> Any:
    """Sets up a worker, also one that takes the place of another. The class is made here: Dask loads slowly."""
    from distributed import WorkerPlugin

    class SetUp(WorkerPlugin):
        name = "pretrain-mlip"

        def setup(self, worker: Any) -> None:
            del worker
            set_up_worker()

    return SetUp()


def set_up_worker() -> None:
    """One thread, memory that is kept, and the parent decides what Ctrl-C and SIGTERM mean."""
    import torch

    torch.set_num_threads(1)
    keep_memory()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: request_stop(None))


def _local_cluster(workers: int) -> LocalCluster:
    """Worker processes on this machine, without a dashboard, and silent."""
    from dask.config import set as dask_options
    from distributed import LocalCluster

    logging.getLogger("distributed").setLevel(logging.WARNING)  # connections close after silence_logs has ended
    with dask_options(DASK), environment(thread_variables(1) | _QUIET):
        return LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=cast("str", None),
            worker_dashboard_address=None,
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},  # Dask listens all the same, else always on 8787
            memory_limit=0,  # Dask would pause and kill workers at a share of it
            env=thread_variables(1),
            silence_logs=logging.CRITICAL,  # a worker that dies is our own message
        )


def _client(cluster: LocalCluster) -> Client:
    from dask.config import set as dask_options
    from distributed import Client

    with dask_options(DASK):
        return Client(cluster)


def _connected(scheduler: str, folder: Path | None) -> Client:
    """A client of a scheduler whose workers can do what is asked of them."""
    from distributed import Client

    try:
        client = Client(scheduler, timeout=CONNECTING)
        client.wait_for_workers(1, timeout=FIRST_WORKER)
    except (OSError, TimeoutError, ValueError) as error:
        reason = " ".join(str(error).split()) or "no answer"
        raise InputError(f"scheduler: {scheduler}: no Dask scheduler with workers there ({reason})") from error
    try:
        client.get_versions(check=True)
        found = client.run(_about, str(folder.absolute()) if folder is not None else None)
    except Exception as error:
        client.close()
        reason = " ".join(str(error).split())
        raise InputError(
            f"scheduler: {scheduler}: its workers cannot work for this program; install the same versions there "
            f"({reason})"
        ) from error
    from pretrain_mlip import __version__

    for version, host, seen in cast("dict[str, tuple[str, str, bool]]", found).values():
        if version != __version__:
            client.close()
            raise InputError(f"scheduler: {host} has version {version} of pretrain-mlip, this is {__version__}")
        if not seen:
            client.close()
            raise InputError(
                f"{folder}: a worker on {host} does not see this folder; put it on a file system that all share"
            )
    return client


def _about(folder: str | None) -> tuple[str, str, bool]:
    """Of a worker: version, host, and whether it sees a folder."""
    from pretrain_mlip import __version__

    return __version__, socket.gethostname(), folder is None or Path(folder).is_dir()


def end_with_parent(listening: Connection) -> None:
    """End this process when the other end of a pipe is closed: nobody wants a result, or its parent was killed.

    A child that went on would also write into a run that may have been resumed meanwhile.
    """

    def watch() -> None:
        wait_for([listening])  # nothing is ever sent, so this is the end of the pipe
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
        _set_environment(before)


def _set_environment(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
