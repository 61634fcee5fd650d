"""Replicas that have ended, a file for each, so that an interrupted campaign goes on where it was."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase.io import write

from pretrain_mlip.dynamics.survival import ReplicaResult
from pretrain_mlip.errors import InputError
from pretrain_mlip.files import atomic_path, read_json, write_json
from pretrain_mlip.settings import flattened

if TYPE_CHECKING:
    import os

    from ase import Atoms

logger = logging.getLogger(__name__)


class ReplicaStore:
    """A folder with ``<potential>-<replica>.json`` of each replica that has ended.

    Beside one that failed lies ``<potential>-<replica>.failed.extxyz``: the last good structure and the first bad one.
    """

    def __init__(self, folder: str | os.PathLike[str], potentials: Mapping[str, str], *, replace: bool = False) -> None:
        """Nothing is read or written yet.

        Args:
            folder: of one campaign.
            potentials: name -> what tells a potential from others, such as the SHA-256 of its file.
            replace: replicas of another campaign are computed anew; refused otherwise.
        """
        self.folder, self.potentials, self.replace = Path(folder), potentials, replace

    def find(self, potential: str, replica: int, identity: Mapping[str, Any]) -> ReplicaResult | None:
        """A replica that has ended, without its frames.

        Raises:
            InputError: it is there, of another campaign or damaged.
        """
        path = self._path(potential, replica)
        if not path.exists():
            return None
        content = read_json(path)
        try:
            before, result = content["identity"], ReplicaResult.from_dict(content["result"])
        except (KeyError, TypeError) as error:
            raise InputError(f"{path}: is not the file of a replica; remove it, and it is computed again") from error
        changes = _changes(before, self._complete(potential, identity))
        if not changes:
            return result
        if not self.replace:
            raise InputError(
                f"{path}: is of another campaign ({changes}); choose another output, or remove the folder {self.folder}"
            )
        logger.warning("%s: is of another campaign (%s), and computed again", path, changes)
        return None

    def keep(self, result: ReplicaResult, identity: Mapping[str, Any]) -> None:
        """Write a replica that has ended."""
        path = self._path(result.potential, result.replica)
        frames = [frame for frame in (*result.frames[-1:], result.failed_frame) if frame is not None]
        failed = path.with_suffix(".failed.extxyz")
        failed.unlink(missing_ok=True)
        if result.failed_frame is not None:
            _write(failed, frames)
        write_json(path, {"identity": self._complete(result.potential, identity), "result": result.to_dict()})

    def _complete(self, potential: str, identity: Mapping[str, Any]) -> dict[str, Any]:
        return json.loads(json.dumps({**identity, "potential": self.potentials[potential]}))

    def _path(self, potential: str, replica: int) -> Path:
        return self.folder / f"{potential}-{replica:03d}.json"


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs, key by key; empty where nothing does."""
    old, new = flattened(before), flattened(now)
    keys = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
    return "; ".join(f"{key} was {old.get(key)}, is {new.get(key)}" for key in keys[:5])


def _write(path: Path, frames: list[Atoms]) -> None:
    with atomic_path(path) as temporary:
        write(temporary, frames, format="extxyz")
