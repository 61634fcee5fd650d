"""Predictions for many structures in several worker processes, through Dask.

Structures go to the workers in chunks and come back in their order. A worker that is killed is started again by Dask,
and its chunk is computed again; the potential goes to every worker once, as the content of a checkpoint.
"""

from __future__ import annotations

import io
import itertools
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import torch
from ase import Atoms
from distributed import Client, Future, KilledWorker, Worker, WorkerPlugin, get_worker, wait

from pretrain_mlip.calculators.batched import predict
from pretrain_mlip.console import track
from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.graphs.graph import device_named
from pretrain_mlip.keys import STRUCTURE_ID
from pretrain_mlip.parallel import Workers
from pretrain_mlip.potentials.base import Potential
from pretrain_mlip.potentials.checkpoint import checkpoint_content, potential_from_content
from pretrain_mlip.structures.io import SOURCE
from pretrain_mlip.structures.labels import Labels

log = logging.getLogger(__name__)
ATOMS_PER_CHUNK = 4000  # about half a second of work: little is lost with a worker, and nobody waits long for the last
CHUNKS_PER_WORKER = 2  # on their way at a time, so that a worker always finds the next one
PLUGIN = "pretrain-mlip potential"


class Chunk(NamedTuple):
    """Neighbours in a list of structures, and the place of the first."""

    first: int
    frames: list[Atoms]


class _PotentialPlugin(WorkerPlugin):
    """Keeps the potential on a worker, also on one that takes the place of another."""

    name = PLUGIN

    def __init__(self, content: bytes, device: str, dtype: str | None) -> None:
        self.content, self.device, self.dtype = content, device, dtype

    def setup(self, worker: Worker) -> None:
        del worker
        torch.set_num_threads(1)
        self.potential = potential_from_content(torch.load(io.BytesIO(self.content), weights_only=True))


def predict_distributed(
    potential: Potential,
    frames: Sequence[Atoms],
    *,
    workers: int = 1,
    scheduler: str | None = None,
    device: str = "cpu",
    dtype: str | None = None,
    description: str = "predicting",
) -> list[Labels]:
    """What ``predict`` gives, computed by worker processes of one thread each on this machine.

    Batches begin anew with every chunk, so numbers may differ from those of one process by rounding. As with everything
    that starts processes, a script has to keep its own work under ``if __name__ == "__main__":``. While this runs,
    the processes listen to each other on ports of 127.0.0.1.

    Args:
        potential: any potential of ours.
        frames: structures.
        workers: number of processes.
        scheduler: address of a Dask scheduler, whose workers are taken instead.
        device: "cpu", "cuda" or "auto"; all workers share it.
        dtype: "float32" or "float64" for networks; None keeps theirs.
        description: for the progress bar.

    Raises:
        InputError: see ``predict`` and ``Workers.client``.
        ComputationError: a structure ends every process that computes it.
    """
    if not frames:
        return []
    device_named(device)  # refused before processes are started
    with Workers(workers, scheduler) as pool:
        return predict_with(pool.client, potential, frames, device=device, dtype=dtype, description=description)


def predict_with(
    client: Client,
    potential: Potential,
    frames: Sequence[Atoms],
    *,
    device: str = "cpu",
    dtype: str | None = None,
    description: str = "predicting",
) -> list[Labels]:
    """As ``predict_distributed``, with the workers of a Dask client that is already there."""
    buffer = io.BytesIO()
    torch.save(checkpoint_content(potential), buffer)
    client.register_plugin(_PotentialPlugin(buffer.getvalue(), device, dtype))
    before = _workers(client)
    try:
        found = itertools.chain.from_iterable(_in_order(client, _chunks(frames), CHUNKS_PER_WORKER * len(before)))
        labels = list(track(found, description, total=len(frames)))
    finally:
        client.unregister_worker_plugin(PLUGIN)
    died = before - _workers(client)
    if died:
        log.warning("%d worker processes died; their structures were computed again by others", len(died))
    return labels


def _workers(client: Client) -> set[str]:
    return set(client.nthreads())  # type: ignore[arg-type]  # a coroutine of asynchronous clients only


def _in_order(client: Client, chunks: Iterator[Chunk], in_flight: int) -> Iterator[list[Labels]]:
    """Results of the chunks, of which so many are on their way at a time."""
    waiting: deque[tuple[Chunk, Future]] = deque()
    for chunk in chunks:
        waiting.append((chunk, client.submit(_predict, chunk, pure=False)))
        if len(waiting) == in_flight:
            yield _result(client, waiting)
    while waiting:
        yield _result(client, waiting)


def _result(client: Client, waiting: deque[tuple[Chunk, Future]]) -> list[Labels]:
    """The result of the first chunk, which is removed."""
    chunk, future = waiting.popleft()
    try:
        answer = future.result()
    except KilledWorker:
        # Dask blames every chunk that a dead worker had been given; only alone is a chunk found guilty
        wait([other for _, other in waiting])
        try:
            answer = client.submit(_predict, chunk, pure=False).result()
        except KilledWorker:
            last = chunk.first + len(chunk.frames) - 1
            raise ComputationError(
                f"structures {chunk.first} to {last}: every worker process that computed them died (out of memory, or "
                "a crash in compiled code); try fewer workers, or find the structure by halves"
            ) from None
    if isinstance(answer, InputError):
        raise answer
    return answer


def _predict(chunk: Chunk) -> list[Labels] | InputError:
    """Labels of a chunk, on a worker; bad input comes back as a value, which Dask does not log."""
    plugin = cast("_PotentialPlugin", get_worker().plugins[PLUGIN])
    try:
        return predict(
            plugin.potential, chunk.frames, device=plugin.device, dtype=plugin.dtype, first=chunk.first, description=""
        )
    except InputError as error:
        return error


def _chunks(frames: Sequence[Atoms]) -> Iterator[Chunk]:
    """Structures without labels and whatever else is not needed, about ``ATOMS_PER_CHUNK`` together."""
    chunk, atoms_in = Chunk(0, []), 0
    for number, atoms in enumerate(frames):
        bare = Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        bare.info = {key: atoms.info[key] for key in (SOURCE, STRUCTURE_ID) if key in atoms.info}  # for messages
        if chunk.frames and atoms_in + len(atoms) > ATOMS_PER_CHUNK:
            yield chunk
            chunk, atoms_in = Chunk(number, []), 0
        chunk.frames.append(bare)
        atoms_in += len(atoms)
    if chunk.frames:
        yield chunk
