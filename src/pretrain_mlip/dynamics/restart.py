"""Where an interrupted run goes on: ``<trajectory>.restart``, written whenever a frame is saved."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zipfile
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.io import read, write

from pretrain_mlip.dynamics.watch import Thermo
from pretrain_mlip.errors import InputError
from pretrain_mlip.files import atomic_path

if TYPE_CHECKING:
    from pretrain_mlip.dynamics.ensembles import Integrator
    from pretrain_mlip.dynamics.watch import TrajectoryFile, Watch


class RestartFile:
    """The state of a run beside its trajectory; numbers and text only, nothing is unpickled."""

    def __init__(self, file: TrajectoryFile, identity: dict[str, Any]) -> None:
        """Describe it.

        Args:
            file: the trajectory.
            identity: what has to be the same when the run goes on, by name.
        """
        self.file, self.identity = file, identity

    @property
    def path(self) -> Path | None:
        return None if self.file.path is None else restart_path(self.file.path)

    def save(self, step: int, integrator: Integrator, watch: Watch) -> None:
        """Write the state after a step whose frame is in the trajectory."""
        if self.path is None:
            return
        atoms = integrator.atoms
        content = {
            "step": np.array(step),
            "identity": np.array(json.dumps(self.identity, sort_keys=True)),
            "positions": atoms.positions,
            "momenta": atoms.get_momenta(),
            "cell": atoms.cell.array,
            **{f"thermo_{name}": np.array(values) for name, values in dataclasses.asdict(watch.thermo).items()},
            **{f"integrator_{name}": value for name, value in integrator.state().items()},
        }
        with atomic_path(self.path) as path, path.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **content)

    def restore(self, integrator: Integrator, watch: Watch) -> int:
        """Take atoms, integrator and watch to where the run was.

        Returns:
            The step that it has done; -1 where nothing was saved.

        Raises:
            InputError: the run that was interrupted is another one, or its files are damaged.
        """
        if self.path is None or not self.path.exists():
            return -1
        content = self._read(self.path)
        self._compare(json.loads(str(content["identity"])))
        step = int(content["step"])
        frames = self._frames(step)
        atoms = integrator.atoms
        watch.checks.look(frames[0])  # what the checks compare with
        atoms.set_cell(content["cell"])
        atoms.positions = content["positions"]
        atoms.set_momenta(content["momenta"], apply_constraint=False)
        integrator.restore(_part(content, "integrator_"))
        watch.thermo = Thermo(**{name: values.tolist() for name, values in _part(content, "thermo_").items()})
        watch.checks.previous_temperature = watch.thermo.temperature[-1]
        watch.checks.window_start = float(frames[-1].info["time_fs"])
        watch.frames, watch.last_good = frames, frames[-1]
        self.file.written = len(frames)
        return step

    def refuse_ended(self) -> None:
        """Raises InputError where there is nothing to go on with, and a whole trajectory that would be lost."""
        if self.path is not None and not self.path.exists() and self.file.path is not None and self.file.path.exists():
            raise InputError(f"{self.file.path}: this run has ended; choose another output, or run it without resume")

    def remove(self) -> None:
        """Once the run has ended, or where it starts anew."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _read(self, path: Path) -> dict[str, np.ndarray]:
        try:
            with np.load(path, allow_pickle=False) as content:
                return dict(content)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: is damaged ({error}); remove it, and the run starts anew") from None

    def _compare(self, before: dict[str, Any]) -> None:
        for name in sorted(before.keys() | self.identity.keys()):
            if before.get(name) != self.identity.get(name):
                raise InputError(
                    f"{self.path}: the run that was interrupted had {name}={before.get(name)}, and this one has "
                    f"{self.identity.get(name)}; remove the file to start anew"
                )

    def _frames(self, step: int) -> list[Atoms]:
        """Frames of the trajectory up to a step; what was written after is taken away."""
        part = self.file.part
        frames = [atoms for atoms in whole_frames(part) if int(atoms.info["step"]) <= step]
        if not frames or int(frames[-1].info["step"]) != step:
            raise InputError(f"{part}: lacks frames up to step {step}; remove {self.path} to start anew")
        with atomic_path(part) as path:
            write(path, frames, format="extxyz")
        return frames


def restart_path(trajectory: Path) -> Path:
    """Where the state of the run with this trajectory is, while it goes on."""
    return trajectory.with_name(trajectory.name + ".restart")


def identity_of(atoms: Atoms, **others: Any) -> dict[str, Any]:
    """What tells a run from another: its structure in short, and whatever else is named."""
    digest = hashlib.sha256()
    for values in (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc):
        digest.update(np.ascontiguousarray(values).tobytes())
    return {"structure": f"{atoms.get_chemical_formula()} {digest.hexdigest()[:12]}", **others}


def whole_frames(path: Path) -> list[Atoms]:
    """Frames of an extxyz file whose last one may be cut off."""
    if not path.is_file():
        return []
    whole: list[str] = []
    with path.open(encoding="utf-8") as stream:
        while (first := stream.readline()).strip().isdecimal():
            lines = [first, *islice(stream, int(first) + 1)]
            if len(lines) < int(first) + 2 or not lines[-1].endswith("\n"):
                break
            whole += lines
    return read(StringIO("".join(whole)), ":", format="extxyz") if whole else []  # type: ignore[reportReturnType]


def _part(content: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): value for name, value in content.items() if name.startswith(prefix)}
