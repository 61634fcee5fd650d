"""One training in several processes, each with a share of every batch: how they are started and how they meet.

Either ``devices: n`` starts n processes on this machine (``run_together``), or torchrun has started them, on any number
of machines, and every one of them runs the same command (``torchrun_group``): then the first does what is not training,
and the others wait to be called. Both describe a process by the variables that torchrun sets.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy

from pretrain_mlip import console
from pretrain_mlip.errors import ComputationError, InputError, PretrainMLIPError
from pretrain_mlip.graphs.graph import device_named
from pretrain_mlip.memory import keep_memory
from pretrain_mlip.parallel import end_with_parent, environment, thread_variables
from pretrain_mlip.stopping import StopRequest, stop_signals

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

T = TypeVar("T")
GRACE = 30.0  # seconds to write a state in after being asked to stop; SLURM and torchrun wait as long
PATIENCE = timedelta(minutes=30)  # that processes wait for the last of them to start
c10d: Any = torch.distributed  # its documented stores have no stubs
_LOST_MESSAGE = "another process of this training has ended; its own message, if it left one, says why"
_LOST = ("gloo", "Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL")


class LostProcessError(ComputationError):
    """Another process of the same training has ended."""


@dataclass(frozen=True)
class Place:
    """Which of the processes of a training this one is, as torchrun tells it."""

    rank: int
    size: int
    local_rank: int
    local_size: int

    @classmethod
    def of(cls, variables: Mapping[str, str] = os.environ) -> Place | None:
        """The place that the environment speaks of; None where this process is alone.

        Raises:
            InputError: it speaks of several processes, but not of where they meet.
        """
        size = int(variables.get("WORLD_SIZE") or 1)
        if size == 1:
            return None
        needed = ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
        absent = [name for name in needed if not variables.get(name)]
        if absent:
            raise InputError(
                f"the environment says WORLD_SIZE={size}, but not {', '.join(absent)}: start the processes with "
                "torchrun, or unset WORLD_SIZE"
            )
        return cls(int(variables["RANK"]), size, int(variables["LOCAL_RANK"]), int(variables["LOCAL_WORLD_SIZE"]))


class _SummedByUs(DDPStrategy):
    """Processes that share batches; gradients are summed by the training loop, see ``Training``."""

    def setup_module(self, module: torch.nn.Module) -> Any:
        return module


def one_process(device: str = "cpu") -> Fabric:
    """Where a training runs in this process alone."""
    console.quiet("lightning_fabric")
    place = device_named(device)
    return Fabric(
        accelerator=place.type,
        devices=1 if place.index is None else [place.index],
        plugins=[LightningEnvironment()],  # else it asks SLURM, whose numbers of tasks are those of others
    )


def joined(device: str, threads: int = 1) -> Fabric:
    """Where a training runs that this process shares with others; alone, as ``one_process``.

    Returns when all of them are there.

    Raises:
        InputError: the device is not available.
    """
    place = Place.of()
    if place is None:
        return one_process(device)
    console.quiet("lightning_fabric")
    kind = device_named(device).type
    if kind == "cuda":
        device_named(f"cuda:{place.local_rank}")
    strategy = _SummedByUs(
        cluster_environment=TorchElasticEnvironment(), process_group_backend="nccl" if kind == "cuda" else "gloo"
    )
    fabric = Fabric(
        accelerator=kind, devices=place.local_size, num_nodes=place.size // place.local_size, strategy=strategy
    )
    with lost_processes():
        fabric.launch()
    torch.set_num_threads(threads)
    return fabric


def check_devices(device: str, devices: int) -> None:
    """Refuse what cannot be started, before anything is computed.

    Raises:
        InputError: torchrun has started another number of processes, or there are fewer GPUs.
    """
    place = Place.of()
    if place is not None and devices not in (1, place.size):
        raise InputError(f"devices: {devices}, but torchrun has started {place.size} processes; leave devices at 1")
    together = devices if place is None else place.local_size
    if together == 1:
        return
    found = device_named(device)
    if found.index is not None:
        raise InputError(f"device: {device} is one device, which several processes cannot share; say cuda")
    if found.type == "cuda" and torch.cuda.device_count() < together:
        raise InputError(f"{together} processes need as many GPUs, and {torch.cuda.device_count()} are here")


def check_visible(fabric: Fabric, path: Path) -> None:
    """Check that every process sees the folder of a run.

    Raises:
        InputError: one of them does not; raised in all of them.
    """
    seen = fabric.all_reduce(torch.tensor(float(path.exists()), device=fabric.device), reduce_op="sum")
    if int(cast("torch.Tensor", seen)) < fabric.world_size:
        where = "" if path.exists() else f" {socket.gethostname()} does not."
        raise InputError(f"{path}: not every process sees this folder; put it on a file system that all share.{where}")


@contextmanager
def lost_processes() -> Iterator[None]:
    """Say so where another process has ended while this one was waiting for it.

    Raises:
        LostProcessError: that.
    """
    try:
        yield
    except torch.distributed.DistError as error:
        raise LostProcessError(_LOST_MESSAGE) from error
    except RuntimeError as error:
        if not isinstance(error, ComputationError) and any(sign in str(error) for sign in _LOST):
            raise LostProcessError(_LOST_MESSAGE) from error
        raise


class Together:
    """What the processes of a training tell each other; with one process nothing is sent."""

    def __init__(self, fabric: Fabric) -> None:
        self.fabric = fabric
        self.several = fabric.world_size > 1

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all processes."""
        return cast("torch.Tensor", self.fabric.all_reduce(values, reduce_op="sum"))

    def any(self, flag: bool) -> bool:  # noqa: FBT001
        """Whether it is true in any process; the same answer in all of them."""
        return bool(self.sum(torch.tensor(float(flag), device=self.fabric.device))) if self.several else flag

    def of_first(self, read: Callable[[], T]) -> T:
        """What the first process reads, in all of them."""
        content = read() if self.fabric.is_global_zero else None
        return cast("T", self.fabric.broadcast(content))

    def all_of(self, names: list[str]) -> list[str]:
        """Names that any process has found."""
        if not self.several:
            return names
        found: list[list[str]] = [[] for _ in range(self.fabric.world_size)]
        torch.distributed.all_gather_object(found, names)
        return list(dict.fromkeys(name for part in found for name in part))

    def sum_gradients(self, weights: Sequence[torch.Tensor]) -> None:
        """Give every process the gradients of the whole batch, in one message.

        DDP's wrapper sends parts while others are still computed, but waits for ever for a parameter that the loss of
        a batch does not reach. Networks are small: one message takes less time than its bookkeeping.
        """
        parts = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
        reached = parts[0].new_tensor([float(w.grad is not None) for w in weights])
        *summed, anywhere = self.sum(torch.cat([*(part.flatten() for part in parts), reached])).split(
            [*(part.numel() for part in parts), len(parts)]
        )
        for weight, total, found in zip(weights, summed, anywhere.tolist(), strict=True):
            weight.grad = total.view_as(weight) if found else None


class TorchrunGroup:
    """Processes that torchrun has started with the same command.

    The first does everything and calls the others where they are to take part. They talk through torchrun's store, not
    by messages of the training, whose waiting has limits.
    """

    def __init__(self, place: Place) -> None:
        """Find the store."""
        self.place = place
        with lost_processes():
            store, _, _ = next(c10d.rendezvous("env://", place.rank, place.size, timeout=PATIENCE))
        self.store = c10d.PrefixStore("pretrain-mlip", store)
        self.calls = 0

    def call(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call a function with arguments in every process; for the first of them."""
        self._say((function, arguments))
        with lost_processes():
            function(*arguments)

    def follow(self) -> None:
        """Do what the first process calls for, until it ends; for the others.

        Raises:
            InputError, ComputationError: it ended with this error.
            LostProcessError: it ended without a word.
        """
        while True:
            said = self._heard()
            if said is None:
                return
            if isinstance(said, Exception):
                raise said
            function, arguments = said
            with lost_processes():
                function(*arguments)

    @contextmanager
    def leading(self) -> Iterator[None]:
        """Tell the others when this ends, and how; for the first process."""
        try:
            yield
        except BaseException as error:
            kind = InputError if isinstance(error, InputError) else ComputationError
            self._say(kind(f"the first process ended: {error or type(error).__name__}"))
            raise
        self._say(None)

    def _say(self, what: object) -> None:
        self.store.set(str(self.calls), pickle.dumps(what))
        self.calls += 1

    def _heard(self) -> Any:
        with lost_processes():
            while not self.store.check([str(self.calls)]):
                time.sleep(0.1)  # a wait in the store itself would not be ended by Ctrl-C
            content = self.store.get(str(self.calls))
        self.calls += 1
        return pickle.loads(content)  # noqa: S301  # of our own first process, through the store of this job


def torchrun_group() -> TorchrunGroup | None:
    """The processes that torchrun has started, this one among them; None where it has not."""
    place = Place.of()
    return None if place is None else TorchrunGroup(place)


def run_together(function: Callable[..., None], arguments: Sequence[Any], devices: int, threads: int = 1) -> None:
    """Call a function in several spawned processes of this machine, which share what it trains through ``joined``.

    SIGTERM and Ctrl-C are passed on, and awaited: each process ends as it does when it is alone.

    Args:
        function: importable by name from a fresh process.
        arguments: picklable.
        devices: number of processes.
        threads: of each.

    Raises:
        InputError, ComputationError: raised in a process; or one of them died.
        KeyboardInterrupt: they were asked to stop, and have ended.
    """
    store = c10d.TCPStore("127.0.0.1", 0, devices, is_master=True, wait_for_workers=False)
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "WORLD_SIZE": str(devices),
        "LOCAL_WORLD_SIZE": str(devices),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # the store is here already, in the parent
    }
    context = get_context("spawn")
    listening, alive = Pipe(duplex=False)
    members: list[tuple[BaseProcess, Connection]] = []
    with stop_signals() as asked:
        try:
            for rank in range(devices):
                receiving, sending = context.Pipe(duplex=False)
                process = context.Process(target=_member, args=(listening, sending, function, arguments), daemon=True)
                with environment(shared | thread_variables(threads) | {"RANK": str(rank), "LOCAL_RANK": str(rank)}):
                    process.start()
                sending.close()
                members.append((process, receiving))
            outcomes = _outcomes(members, asked)
        finally:
            for process, _ in members:
                process.kill()
            for process, _ in members:
                process.join()
            alive.close()
            listening.close()
    if asked:
        raise KeyboardInterrupt
    _raise_first(outcomes)


def _member(
    listening: Connection, sending: Connection, function: Callable[..., None], arguments: Sequence[Any]
) -> None:
    """One of the processes; sends the error that ended it, or None."""
    end_with_parent(listening)
    keep_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent, which hears Ctrl-C as well, sends SIGTERM
    outcome: BaseException | None = None
    try:
        with lost_processes():
            function(*arguments)
    except BaseException as error:  # noqa: BLE001  # the parent raises it
        outcome = error
        if not isinstance(error, PretrainMLIPError | KeyboardInterrupt):
            error.add_note(traceback.format_exc())  # which does not travel by itself
    try:
        sending.send(outcome)
    except Exception:  # noqa: BLE001  # an error that cannot be pickled
        sending.send(ComputationError(f"{type(outcome).__name__}: {outcome}"))


def _outcomes(members: Sequence[tuple[BaseProcess, Connection]], asked: StopRequest) -> list[BaseException | None]:
    """What ended each process; once one has failed, or all were asked to stop, the others have so long to end."""
    outcomes: dict[int, BaseException | None] = {}
    told, deadline = False, float("inf")
    while len(outcomes) < len(members) and time.monotonic() < deadline:
        wait([receiving for rank, (_, receiving) in enumerate(members) if rank not in outcomes], timeout=0.1)
        for rank, (process, receiving) in enumerate(members):
            if rank in outcomes or not receiving.poll():
                continue
            try:
                outcomes[rank] = receiving.recv()
            except EOFError:
                process.join()
                outcomes[rank] = ComputationError(
                    f"process {rank} of {len(members)} died (exit status {process.exitcode}: out of memory, or a crash "
                    "in compiled code); started again, the training goes on from last.pt"
                )
            if outcomes[rank] is not None:
                deadline = min(deadline, time.monotonic() + GRACE)
        if asked and not told:
            told, deadline = True, min(deadline, time.monotonic() + GRACE)
            for process, _ in members:
                process.terminate()
    return [outcomes.get(rank) for rank in range(len(members))]


def _raise_first(outcomes: Sequence[BaseException | None]) -> None:
    """Raise the error that says most: not that of a process which only lost another."""
    errors = [outcome for outcome in outcomes if outcome is not None]
    for error in sorted(errors, key=lambda error: isinstance(error, LostProcessError)):
        raise error
