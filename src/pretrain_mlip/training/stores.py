"""Making stores of graphs: parts of a file of structures, each by itself, in worker processes."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from torch_geometric.data import Data

from pretrain_mlip import __version__
from pretrain_mlip.console import track
from pretrain_mlip.errors import InputError
from pretrain_mlip.files import make_folder, read_json, refused_writes, sha256, write_json
from pretrain_mlip.graphs.store import (
    FORMAT,
    PARTS_STAY,
    PLAN,
    Damaged,
    check_part,
    part_keys,
    part_path,
    write_part,
)
from pretrain_mlip.parallel import run_in_processes
from pretrain_mlip.potentials.base import Potential
from pretrain_mlip.structures.io import SOURCE, read_structures
from pretrain_mlip.structures.readers import Span, extxyz_spans, read_part
from pretrain_mlip.training.stages import residual_graph

log = logging.getLogger(__name__)
PART_BYTES = 2**23  # of a file of structures: a few thousand of them, some seconds of work
MOST_PARTS = 100  # each is an open file, and a training may read four stores


class _Task(NamedTuple):
    source: Path
    span: Span
    first: int
    cutoff: float
    baseline: Potential
    path: Path
    key: str


def build_store(folder: Path, source: Path, cutoff: float, baseline: Potential, *, workers: int = 1) -> None:
    """Make a store of ``residual_graphs``, or what is missing of it; nothing where it is whole.

    It may be killed at any moment: parts are complete or absent, and those that are there are not made again.

    Args:
        folder: of the store.
        source: extended XYZ with labels, not compressed.
        cutoff: of the network, Å.
        baseline: reference energies, or an EAM.
        workers: processes.

    Raises:
        InputError: the structures cannot be used, or the folder cannot be written.
        ComputationError: the disk is full; parts that are done stay.
    """
    plan = _plan(source, cutoff, baseline)
    if not _is_same(folder, plan):
        make_folder(folder)
        for path in folder.glob("*.h5"):
            path.unlink()
        with refused_writes(folder / PLAN, PARTS_STAY):
            write_json(folder / PLAN, plan)
    tasks = [
        _Task(source, Span(start, stop, line), first, cutoff, baseline, part_path(folder, number), key)
        for number, ((start, stop, line, first), key) in enumerate(zip(plan["parts"], part_keys(plan), strict=True))
    ]
    missing = [task for task in tasks if not _is_good(task)]
    if not missing:
        return
    for path in folder.glob(".tmp-*"):  # of a session that was killed
        path.unlink()
    log.info("graphs of %s: %d of %d parts to be made in %s", source, len(missing), len(tasks), folder)
    if workers == 1 or len(missing) == 1:
        for task in track(missing, f"graphs of {source.name}"):
            _build(task)
    else:
        with closing(run_in_processes(_build, missing, workers)) as outcomes:
            for _, outcome in track(outcomes, f"graphs of {source.name}", total=len(missing)):
                if isinstance(outcome, Exception):
                    raise outcome


def _is_good(task: _Task) -> bool:
    """Whether a part is there and whole; the log says what is wrong with one that is not."""
    try:
        check_part(task.path, task.key)
    except Damaged as error:
        if task.path.exists():
            log.warning("%s; made again", error)
        return False
    return True


def _build(task: _Task) -> None:
    """Make one part; the entry point of a worker process."""
    write_part(task.path, task.key, _graphs(task))


def _graphs(task: _Task) -> Iterator[Data]:
    for number, atoms in read_part(task.source, task.span, task.first):
        atoms.info[SOURCE] = f"{task.source.name} frame {number}"
        (frame,) = read_structures(atoms)
        yield residual_graph(frame, task.cutoff, task.baseline)


def _plan(source: Path, cutoff: float, baseline: Potential) -> dict[str, Any]:
    """What a store is made from, and how it is divided: bytes, first line and first frame of each part."""
    description = {
        "format": FORMAT,
        "version": __version__,
        "structures": sha256(source),
        "cutoff": cutoff,
        "baseline": _digest(baseline),
    }
    return {"source": description, "parts": list(_parts(source))}


def _parts(source: Path) -> Iterator[list[int]]:
    size = max(PART_BYTES, source.stat().st_size // MOST_PARTS + 1)
    begun: list[int] | None = None
    stop = 0
    with source.open("rb") as stream:
        for number, span in enumerate(extxyz_spans(source, stream)):
            if begun is not None and span.start - begun[0] >= size:
                yield [begun[0], stop, *begun[1:]]
                begun = None
            begun = begun or [span.start, span.line, number]
            stop = span.stop
    if begun is None:
        raise InputError(f"{source}: no frame in this file")
    yield [begun[0], stop, *begun[1:]]


def _is_same(folder: Path, plan: dict[str, Any]) -> bool:
    """Whether a folder holds a store, or the beginning of one, that is made from the same; the log says why not."""
    if not (folder / PLAN).exists():
        return False
    try:
        old = read_json(folder / PLAN)
        if old == plan:
            return True
        changed = [name for name, value in plan["source"].items() if old["source"][name] != value]
    except (InputError, KeyError, TypeError):
        changed = []
    log.warning(
        "%s: stale (%s); made again", folder, f"other {', '.join(changed)}" if changed else f"{PLAN} is damaged"
    )
    return False


def _digest(potential: Potential) -> str:
    """A hash of everything that a potential's predictions depend on."""
    found = hashlib.sha256(json.dumps(potential.config(), sort_keys=True).encode())
    for name, value in sorted(potential.state_dict().items()):
        found.update(name.encode() + value.cpu().numpy().tobytes())
    return found.hexdigest()
