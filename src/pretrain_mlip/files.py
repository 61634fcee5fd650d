"""Outputs that are either whole or absent."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from pretrain_mlip.errors import ComputationError, InputError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

log = logging.getLogger(__name__)
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
PATIENCE = 10.0  # seconds that processes of a run that was killed have to end in


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path`` and move it into place when the block succeeds.

    The temporary name keeps the suffixes of ``path``, since writers choose their format by them.

    Raises:
        InputError: the folder cannot be written to.
    """
    path = Path(path)
    make_folder(path.parent)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".tmp-", suffix="-" + path.name)
    except OSError as error:
        raise InputError(
            f"{path.parent}: cannot write here ({error.strerror}); choose another output folder"
        ) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Create a folder and its parents.

    Raises:
        InputError: a file is in the way, or the parent folder cannot be written to.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{path}: cannot create this folder ({error.strerror}); choose another output folder"
        ) from error
    if not os.access(path, os.W_OK):
        raise InputError(f"{path}: this folder is not writable; choose another output folder")
    return path


@contextmanager
def locked(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Keep other processes out of a folder. The system lifts the lock when this one ends, however it ends.

    Where the file system has no locks there is none.

    Raises:
        InputError: another process is in it, and is so for longer than one takes to end.
    """
    path, deadline = Path(folder) / ".lock", time.monotonic() + PATIENCE
    while (stream := _lock(path)) is None:
        if time.monotonic() > deadline:
            raise InputError(
                f"{folder}: another process is at work in this folder; wait for it, or choose another output"
            )
        time.sleep(0.1)
    with stream:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _lock(path: Path) -> TextIO | None:
    """A file of which this process has the lock; None where another has it, or has just taken the file away."""
    stream = path.open("a")
    try:
        if fcntl is not None:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(stream.fileno()), path.stat()):
            return stream
    except (BlockingIOError, PermissionError, FileNotFoundError):  # the first two are the same on other file systems
        pass
    except OSError as error:
        log.warning("%s: no locks on this file system (%s); start no second process there", path, error.strerror)
        return stream
    stream.close()
    return None


def disk_fails(error: BaseException) -> bool:
    """Whether an error says that a disk takes no more, which is nobody's fault but the disk's."""
    return isinstance(error, OSError) and error.errno in DISK


@contextmanager
def refused_writes(path: str | os.PathLike[str], remedy: str) -> Iterator[None]:
    """Turn what the system says of a full or broken disk into a message.

    Raises:
        ComputationError: the file cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise ComputationError(f"{path}: cannot be written ({error.strerror or error}); {remedy}") from error


def write_text(path: str | os.PathLike[str], text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write strict JSON (no NaN): what is not finite must be None before it comes here."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file.

    Raises:
        InputError: the file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable JSON file ({error})") from error


def sha256(path: str | os.PathLike[str]) -> str:
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
