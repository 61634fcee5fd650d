"""Folders that one process has for itself."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from pretrain_mlip import files
from pretrain_mlip.errors import InputError
from pretrain_mlip.files import locked

COUNT = """
import sys, time
from pathlib import Path
from pretrain_mlip.files import locked
total = Path(sys.argv[1]) / "total"
for _ in range(10):
    with locked(sys.argv[1]):
        known = int(total.read_text())
        time.sleep(0.002)
        total.write_text(str(known + 1))
"""


def test_processes_take_turns_and_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "total").write_text("0")
    others = [subprocess.Popen([sys.executable, "-c", COUNT, str(tmp_path)]) for _ in range(4)]
    assert [other.wait(timeout=60) for other in others] == [0] * 4
    assert (tmp_path / "total").read_text() == "40"
    assert [path.name for path in tmp_path.iterdir()] == ["total"]


def test_a_lock_that_is_held_is_said_and_that_of_a_dead_process_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "PATIENCE", 0.2)
    with locked(tmp_path), pytest.raises(InputError, match="another process is at work"), locked(tmp_path):
        pass
    (tmp_path / ".lock").touch()  # as one that was killed leaves it
    with locked(tmp_path):
        pass
    assert not (tmp_path / ".lock").exists()


def test_a_lock_whose_file_was_taken_away_meanwhile_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that waits has opened the file of another, which is gone when the lock is had."""
    flock, seen = files.fcntl.flock, []

    def late(*args: object) -> None:
        if not seen:
            (tmp_path / ".lock").unlink()
            (tmp_path / ".lock").touch()
        seen.append(args)
        flock(*args)

    monkeypatch.setattr("fcntl.flock", late)
    monkeypatch.setattr(files, "PATIENCE", 5.0)
    with locked(tmp_path), monkeypatch.context() as impatient:
        impatient.setattr(files, "PATIENCE", 0.2)
        with pytest.raises(InputError, match="another process is at work"), locked(tmp_path):
            pass


def test_errors_within_are_not_those_of_the_lock(tmp_path: Path) -> None:
    with pytest.raises(BlockingIOError), locked(tmp_path):
        raise BlockingIOError
    with locked(tmp_path):
        pass


def test_without_locks_of_the_file_system_work_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with locked(tmp_path):
        pass
    assert "no locks on this file system" in caplog.text
