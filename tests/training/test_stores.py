"""Stores: equal to graphs in memory, made again where they are stale or damaged, never half, never read whole."""

from __future__ import annotations

import errno
import logging
import os
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import hard_eam
from tests.graphs.test_records import assert_identical

from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.graphs.sequences import Joined, Weighted, edge_counts, fingerprint, kinds
from pretrain_mlip.graphs.store import PLAN, GraphStore
from pretrain_mlip.potentials.base import Potential, ReferenceEnergies
from pretrain_mlip.potentials.networks import build_model
from pretrain_mlip.structures.datasets import load_dataset
from pretrain_mlip.structures.io import read_structures, write_structures
from pretrain_mlip.training import stores
from pretrain_mlip.training.loop import Training
from pretrain_mlip.training.settings import ReplaySettings, TrainingSettings
from pretrain_mlip.training.stages import residual_graphs, train_stage
from pretrain_mlip.training.stores import build_store

CUTOFF = 3.5
E0 = ReferenceEnergies({"O": -327.0, "Si": -327.0})


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "PART_BYTES", 12_000)  # five structures


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("structures") / "zwölf.extxyz"
    write_structures(path, load_dataset("silica_mini")[::6])
    return path


def lists(source: Path, baseline: Potential = E0) -> list:
    return residual_graphs(read_structures(source), CUTOFF, baseline)


def parts(folder: Path) -> dict[str, int]:
    """When each part was written."""
    return {path.name: path.stat().st_mtime_ns for path in sorted(folder.glob("[0-9]*.h5"))}


@pytest.mark.parametrize("baseline", [E0, hard_eam()], ids=["e0", "eam"])
@pytest.mark.parametrize("workers", [1, 2])
def test_holds_what_lists_hold(tmp_path: Path, source: Path, baseline: Potential, workers: int) -> None:
    build_store(tmp_path / "store", source, CUTOFF, baseline, workers=workers)
    store, graphs = GraphStore.open(str(tmp_path / "store")), lists(source, baseline)
    assert len(parts(tmp_path / "store")) > 2
    assert len(store) == len(graphs)
    for one, other in zip(store, graphs, strict=True):
        assert_identical(one, other)
    assert_identical(store[-1], graphs[-1])
    assert [graph["structure_id"] for graph in store[3:9:2]] == [graph["structure_id"] for graph in graphs[3:9:2]]
    with pytest.raises(IndexError):
        store[len(graphs)]
    assert (edge_counts(store) == edge_counts(graphs)).all()
    assert kinds(store) == kinds(graphs)
    assert fingerprint([store, store[:2]]) == fingerprint([graphs, graphs[:2]])
    assert not list((tmp_path / "store").glob(".tmp-*"))


def test_joined_and_weighted_sequences(tmp_path: Path, source: Path) -> None:
    build_store(tmp_path, source, CUTOFF, E0)
    store, graphs = GraphStore.open(tmp_path), lists(source)
    joined, whole = Joined(graphs[:3], store, ()), graphs[:3] + graphs
    for one, other in zip(joined, whole, strict=True):
        assert_identical(one, other)
    assert (joined.edges == edge_counts(whole)).all()
    assert fingerprint([joined]) == fingerprint([whole])
    assert all(float(graph["config_weight"]) == 0.5 for graph in Weighted(store, 0.5))
    assert fingerprint([Weighted(store, 0.5)]) == fingerprint([Weighted(graphs, 0.5)])
    assert len({fingerprint([sequence]) for sequence in (graphs, Weighted(graphs, 0.5), Weighted(graphs, 0.25))}) == 3


def test_a_whole_store_is_left_alone_and_a_stale_one_made_again(
    tmp_path: Path, source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mine = tmp_path / "mine.extxyz"
    mine.write_bytes(source.read_bytes())
    folder = tmp_path / "store"
    build_store(folder, mine, CUTOFF, E0)
    before = parts(folder)
    build_store(folder, mine, CUTOFF, E0)
    assert parts(folder) == before
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]

    def check(reason: str, cutoff: float, baseline: Potential) -> None:
        build_store(folder, mine, cutoff, baseline)
        assert f"stale ({reason}); made again" in caplog.text
        graphs = residual_graphs(read_structures(mine), cutoff, baseline)
        for one, other in zip(GraphStore.open(folder), graphs, strict=True):
            assert_identical(one, other)

    check("other cutoff", 3.0, E0)
    check("other baseline", 3.0, ReferenceEnergies({"O": -327.0, "Si": -326.0}))
    write_structures(mine, load_dataset("silica_mini")[:7])
    check("other structures, baseline", 3.0, E0)
    (folder / PLAN).write_text("{}")
    check("plan.json is damaged", 3.0, E0)
    caplog.clear()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(stores, "FORMAT", 2)
        check("other format", 3.0, E0)


@pytest.mark.parametrize("where", [0, 0.3, 0.9, -1])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "remove"])
def test_a_damaged_part_is_found_and_made_again_alone(
    tmp_path: Path, source: Path, caplog: pytest.LogCaptureFixture, where: float, damage: str
) -> None:
    build_store(tmp_path, source, CUTOFF, E0)
    before, graphs = parts(tmp_path), lists(source)
    path = tmp_path / "00001.h5"
    content = bytearray(path.read_bytes())
    place = int(where * len(content)) if where >= 0 else len(content) - 1
    content[place] ^= 0x10
    damaged = {"flip": bytes(content), "cut": bytes(content[:place]), "empty": b""}
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(damaged[damage])
    with pytest.raises(InputError, match=r"00001\.h5: .*; go on with the run, which makes it again"):
        GraphStore.open(tmp_path)
    build_store(tmp_path, source, CUTOFF, E0)
    assert damage == "remove" or "00001.h5: " in caplog.text
    assert {name for name, at in parts(tmp_path).items() if before[name] != at} == {"00001.h5"}
    for one, other in zip(GraphStore.open(tmp_path), graphs, strict=True):
        assert_identical(one, other)


def test_damage_after_opening_never_reaches_a_training(tmp_path: Path, source: Path) -> None:
    build_store(tmp_path, source, CUTOFF, E0)
    store = GraphStore.open(tmp_path)
    path = tmp_path / "00000.h5"
    content = bytearray(path.read_bytes())
    content[int(store.parts[0].offsets[0]) + 100] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ComputationError, match=r"00000\.h5: record 0 was damaged after it had been checked"):
        store[0]
    path.write_bytes(b"")  # where the file is mapped into memory, this kills the process
    with pytest.raises(ComputationError, match="record 1 was damaged"):
        store[1]
    assert store[len(store) - 1]["structure_id"].startswith("zwölf.extxyz frame")


def test_a_full_disk_is_said_and_leaves_whole_parts_only(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files may grow to half of what a part needs: the system itself refuses to write on."""
    build_store(tmp_path / "whole", source, CUTOFF, E0)
    (tmp_path / "full").mkdir()
    written = stores.write_part

    def full(path: Path, *arguments: object) -> None:
        if path.name != "00001.h5":
            written(path, *arguments)  # type: ignore[arg-type]
            return
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
        try:
            written(path, *arguments)  # type: ignore[arg-type]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)

    monkeypatch.setattr(stores, "write_part", full)
    with pytest.raises(ComputationError, match=rf"00001\.h5: cannot be written \({os.strerror(errno.EFBIG)}\)"):
        build_store(tmp_path / "full", source, CUTOFF, E0)
    assert [path.name for path in sorted((tmp_path / "full").iterdir())] == ["00000.h5", PLAN]
    with pytest.raises(InputError, match="not there"):
        GraphStore.open(tmp_path / "full")
    monkeypatch.undo()
    monkeypatch.setattr(stores, "PART_BYTES", 12_000)
    before = parts(tmp_path / "full")
    build_store(tmp_path / "full", source, CUTOFF, E0)
    assert before.items() <= parts(tmp_path / "full").items()
    for name in parts(tmp_path / "whole"):
        assert (tmp_path / "full" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_an_unusable_structure_is_named(tmp_path: Path, source: Path) -> None:
    text = source.read_text(encoding="utf-8")
    broken = tmp_path / "broken.extxyz"
    place = text.index("REF_energy" if "REF_energy" in text else "energy", len(text) // 2)
    broken.write_text(text[:place] + text[place:].replace("energy=", "nothing=", 1), encoding="utf-8")
    with pytest.raises(InputError, match=r"broken\.extxyz frame 1\d: no energy label"):
        build_store(tmp_path / "store", broken, CUTOFF, E0)


SCRIPT = """
import time
from pathlib import Path
from pretrain_mlip.training import stores
from tests.training.test_stores import CUTOFF, E0

stores.PART_BYTES = 12_000
write_part = stores.write_part

def slow(path, key, graphs):
    write_part(path, key, (time.sleep(0.05) or graph for graph in graphs))

stores.write_part = slow
stores.build_store(Path({folder!r}), Path({source!r}), CUTOFF, E0)
"""


def test_killed_and_resumed(tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "store"
    script = SCRIPT.format(folder=str(folder), source=str(source))
    process = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[2])
    while process.poll() is None and not ((folder / "00001.h5").exists() and list(folder.glob(".tmp-*"))):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = parts(folder)
    assert before
    with pytest.raises(InputError, match="not there"):
        GraphStore.open(folder)
    build_store(folder, source, CUTOFF, E0)
    assert before.items() <= parts(folder).items()  # what was done was not done again
    assert not list(folder.glob(".tmp-*"))
    for one, other in zip(GraphStore.open(folder), lists(source), strict=True):
        assert_identical(one, other)


def _checksum(folder: Path) -> float:
    store = GraphStore.open(folder)
    order = np.random.default_rng(0).permutation(len(store))
    return float(sum(store[int(index)]["positions"].sum() for index in order))


def test_several_processes_read_a_folder_that_nobody_may_write(tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "store"
    build_store(folder, source, CUTOFF, E0)
    for path in [*folder.iterdir(), folder]:
        path.chmod(path.stat().st_mode & ~0o222)
    try:
        build_store(folder, source, CUTOFF, E0)  # nothing to do
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            sums = list(pool.map(_checksum, [folder] * 2))
    finally:
        folder.chmod(0o755)
    assert sums == [_checksum(folder)] * 2


SMALL = {"width": 8, "convolutions": 1, "gaussians": 8, "cutoff": CUTOFF}
SETTINGS = TrainingSettings(epochs=2, batch_size=3, max_edges=10_000)


def test_a_training_from_a_store_is_that_from_lists(tmp_path: Path, source: Path) -> None:
    build_store(tmp_path / "store", source, CUTOFF, E0)
    store, graphs = GraphStore.open(tmp_path / "store"), lists(source)
    found = {}
    for name, train in (("lists", graphs), ("store", store)):
        start = train_stage("pretrain", "cgcnn", SMALL, train, train, E0, SETTINGS, tmp_path / name / "a").network
        found[name] = train_stage(
            *("replay", "cgcnn", SMALL, graphs[:7], graphs[:7], E0, SETTINGS, tmp_path / name / "b"),
            start=start,
            replayed=train,
            replay=ReplaySettings(weight=0.5),
        )
    for name, value in found["lists"].network.state_dict().items():
        assert torch.equal(value, found["store"].network.state_dict()[name])
    losses = [[row["loss"] for row in result.history] for result in found.values()]
    assert losses[0] == losses[1]
    # What was begun with lists goes on from a store
    longer = SETTINGS.model_copy(update={"checkpoint_minutes": 5.0})
    again = train_stage("pretrain", "cgcnn", SMALL, store, store, E0, longer, tmp_path / "lists" / "a")
    assert again.steps == 2 * -(-len(graphs) // 3)


def test_a_store_is_read_batch_by_batch(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_store(tmp_path / "store", source, CUTOFF, E0)
    store = GraphStore.open(tmp_path / "store")
    reads = []
    read = GraphStore.read
    monkeypatch.setattr(GraphStore, "read", lambda self, index: reads.append(index) or read(self, index))
    network = build_model("cgcnn", E0.elements, seed=1, **SMALL)
    training = Training(network, store, store, SETTINGS, tmp_path / "run", replayed=Weighted(store, 0.5), replay_size=1)
    assert reads == [0]  # has it labels that the best epoch can be chosen by? Plans, fingerprints and kinds need none
    reads.clear()
    sizes = []
    step = Training._step

    def counted(self: Training, graph: object) -> float | None:
        sizes.append(len(reads) - sum(sizes))
        return step(self, graph)  # type: ignore[arg-type]

    monkeypatch.setattr(Training, "_step", counted)
    training.run()
    steps = -(-len(store) // SETTINGS.batch_size)
    assert max(sizes[:steps]) == SETTINGS.batch_size + 1  # no batch ahead
    assert len(reads) == 2 * (2 * len(store) + steps)
