"""Labels by worker processes equal those of one process, whatever happens to the workers."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import read, write
from distributed import Client, Worker
from tests.conftest import STRUCTURES, hard_eam, potentials, quartz

from pretrain_mlip.calculators import distributed
from pretrain_mlip.calculators.batched import predict
from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.parallel import Workers
from pretrain_mlip.structures.labels import Labels

FRAMES = [atoms for atoms in STRUCTURES.values() for _ in range(2)]


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with Workers(2) as workers:
        yield workers.client


def differences(found: list[Labels], expected: list[Labels]) -> float:
    """The largest; structures differ in size, so that another order is an error of shapes."""
    assert len(found) == len(expected)
    largest = 0.0
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.stress is None) == (theirs.stress is None)
        pairs = [(ours.energy, theirs.energy), (ours.forces, theirs.forces)]
        pairs += [] if ours.stress is None else [(ours.stress, theirs.stress)]
        largest = max(largest, *(float(np.abs(np.subtract(a, b)).max()) for a, b in pairs))
    return largest


@pytest.mark.parametrize("name", list(potentials()))
def test_every_potential_labels_as_in_one_process(client: Client, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    potential = potentials()[name]
    # One chunk makes the same batches, hence the same digits
    assert differences(distributed.predict_with(client, potential, FRAMES), predict(potential, FRAMES)) == 0.0
    monkeypatch.setattr(distributed, "ATOMS_PER_CHUNK", 1)
    assert differences(distributed.predict_with(client, potential, FRAMES), predict(potential, FRAMES)) < 1e-10


@pytest.mark.parametrize("size", [1, 10, 1000])
def test_chunks_are_the_structures_in_their_order(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "ATOMS_PER_CHUNK", size)
    chunks = list(distributed._chunks(FRAMES))
    assert [atoms for chunk in chunks for atoms in chunk.frames] == FRAMES
    for chunk in chunks:
        assert chunk.frames[0] == FRAMES[chunk.first]
        assert len(chunk.frames) == 1 or sum(map(len, chunk.frames)) <= size


@pytest.mark.parametrize("fault", ["element", "position", "element in a file"])
def test_bad_input_is_named_by_its_number_in_the_whole_list(
    client: Client, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "ATOMS_PER_CHUNK", 20)
    frames = [quartz() for _ in range(12)]
    for number in (7, 10):  # the first is named, as in one process
        if fault.endswith("file"):
            frames[number].info["_source"] = f"a.extxyz frame {number}"
        if fault.startswith("element"):
            frames[number].symbols[3] = "Fe"
        else:
            frames[number].positions[3, 1] = np.nan
    with pytest.raises(InputError) as alone:
        predict(hard_eam(), frames)
    with pytest.raises(InputError) as together:
        distributed.predict_with(client, hard_eam(), frames)
    assert ("a.extxyz frame 7" if fault.endswith("file") else "structure 7") in str(together.value)
    assert str(together.value) == str(alone.value)


def _slow_predict(*args: object, **options: object) -> list[Labels]:
    time.sleep(0.2)
    return predict(*args, **options)  # type: ignore[arg-type]


def _deadly_predict(potential: object, frames: list[Atoms], **options: object) -> list[Labels]:
    """A crash in compiled code, as it were, at the structure with iron."""
    if any("Fe" in atoms.symbols for atoms in frames):
        os.kill(os.getpid(), signal.SIGKILL)
    return predict(potential, frames, **options)  # type: ignore[arg-type]


def _replace_predict(function: object) -> None:
    distributed.predict = function  # type: ignore[assignment]


def test_a_killed_worker_loses_and_doubles_nothing(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(distributed, "ATOMS_PER_CHUNK", 20)
    client.run(_replace_predict, _slow_predict)
    frames = [atoms for _ in range(5) for atoms in FRAMES]
    victim = next(iter(client.run(os.getpid).values()))
    killer = threading.Timer(0.7, os.kill, (victim, signal.SIGKILL))
    killer.start()
    with caplog.at_level(logging.WARNING):
        found = distributed.predict_with(client, hard_eam(), frames)
    assert not killer.is_alive()
    assert differences(found, predict(hard_eam(), frames)) < 1e-10
    assert "worker processes died" in caplog.text  # so it was alive when it was killed, in the middle
    assert victim not in client.run(os.getpid).values()


class DeadlyPlugin(distributed._PotentialPlugin):
    """Prepares workers, also those that take the place of dead ones, to die at iron."""

    def setup(self, worker: Worker) -> None:
        super().setup(worker)
        _replace_predict(_deadly_predict)


def test_a_chunk_that_kills_every_worker_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "ATOMS_PER_CHUNK", 20)
    monkeypatch.setattr(distributed, "_PotentialPlugin", DeadlyPlugin)
    frames = [quartz() for _ in range(12)]
    frames[7].symbols[3] = "Fe"
    with pytest.raises(ComputationError, match=r"structures 6 to 7: .* died"):
        distributed.predict_distributed(hard_eam(), frames, workers=2)


SCRIPT = """
import sys
from ase.io import read
from pretrain_mlip.calculators.batched import label_structures
from pretrain_mlip.potentials.checkpoint import load_potential

if __name__ == "__main__":
    labelled = label_structures(load_potential(sys.argv[1]), read(sys.argv[2], ":"), workers=2)
    print([atoms.get_potential_energy() for atoms in labelled])
"""


def test_scripts_and_the_command_line_say_nothing_but_their_results(tmp_path: Path) -> None:
    hard_eam().save(tmp_path / "eam.json")
    write(tmp_path / "in.extxyz", [quartz(), quartz()])
    (tmp_path / "script.py").write_text(SCRIPT)
    files = [str(tmp_path / name) for name in ("eam.json", "in.extxyz", "out.extxyz")]
    command = ["-m", "pretrain_mlip", "label", files[1], "--potential", files[0], "-o", files[2], "--workers", "2"]
    outputs = []
    for arguments in ([str(tmp_path / "script.py"), *files[:2]], command):
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert not done.stderr
        outputs.append(done.stdout)
    expected = [labels.energy for labels in predict(hard_eam(), read(files[1], ":"))]
    assert json.loads(outputs[0]) == pytest.approx(expected, abs=1e-10)
    assert [atoms.get_potential_energy() for atoms in read(files[2], ":")] == pytest.approx(expected, abs=1e-10)


def test_no_structures_start_no_processes() -> None:
    assert distributed.predict_distributed(hard_eam(), [], workers=2) == []
