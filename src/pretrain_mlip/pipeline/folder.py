"""Where a run keeps what: one place for the names of its files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

from pretrain_mlip.config import RunConfig
from pretrain_mlip.errors import InputError
from pretrain_mlip.files import make_folder, write_text
from pretrain_mlip.settings import read_content, read_settings, to_yaml

FOUNDATION = "foundation"


class RunFolder:
    """The folder of a run. All that a later step needs is in it; it goes on without the input files."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.started_with = self.path / ".settings.yaml"
        self.log = self.path / "log.txt"
        self.eam = self.path / "eam" / "eam.json"
        self.pretraining_counts = self.path / "pretraining" / "counts.json"
        self.reference_energies = self.path / "data" / "reference_energies.json"
        self.sources = self.path / "data" / "sources.json"

    def data(self, split: str) -> Path:
        """DFT structures of a split."""
        return self.path / "data" / f"{split}.extxyz"

    def pretraining(self, split: str) -> Path:
        """Perturbed structures of a split with the EAM's labels."""
        return self.path / "pretraining" / f"{split}.extxyz"

    def graphs(self, labels: str, split: str, baseline: str) -> Path:
        """Store of the graphs of a split, where there are too many for memory."""
        return self.path / "graphs" / f"{labels}_{split}_minus_{baseline}"

    def model(self, strategy: str) -> Path:
        """Folder of a trained strategy."""
        return self.path / "models" / strategy

    def training(self, strategy: str, member: int, ensemble: int) -> Path:
        """Folder of a training: that of the strategy, or of a member of its ensemble."""
        return self.model(strategy) if ensemble == 1 else self.model(strategy) / f"member-{member}"

    def potential(self, name: str) -> Path:
        """File of a potential: "eam" or a strategy."""
        return self.eam if name == "eam" else self.model(name) / "best.pt"

    def crystal(self, name: str) -> Path:
        """A crystal whose phonons are computed."""
        return self.path / "data" / "crystals" / f"{name}.extxyz"

    def replicas(self, section: str) -> Path:
        """Folder of the replicas of a section of the results that have ended."""
        return self.path / "replicas" / section

    @property
    def foundation(self) -> Path:
        """The potential that finetuning starts from where it comes from elsewhere."""
        return self.potential(FOUNDATION)

    def take(self, other: RunFolder, *parts: str) -> None:
        """Copy parts of another run, such as its data, that this one has not got yet."""
        for part in parts:
            source, target = other.path / part, self.path / part
            if target.exists() or not source.exists():
                continue
            half = make_folder(self.path) / f".{part}.part"
            shutil.rmtree(half, ignore_errors=True)
            shutil.copytree(source, half)
            half.rename(target)

    @property
    def has_seeds(self) -> bool:
        """Whether it holds runs of several seeds, and not one."""
        return any(self.path.glob("seed-*/config.yaml"))

    def refuse_another_kind(self, kind: Literal["run", "seeds", "study"]) -> None:
        """Nothing of one kind is written over another.

        Raises:
            InputError: the folder holds another kind of runs.
        """
        found = None
        if self.config.exists():
            study = "study" in read_content(self.config)
            found = "study" if study else "seeds" if self.has_seeds else "run" if self.started else None
        if found not in (None, kind):
            words = {"run": "a single run", "seeds": "runs of several seeds", "study": "a study"}
            raise InputError(f"{self.path}: holds {words[found]}, and this is {words[kind]}; choose another output")

    @property
    def started(self) -> bool:
        """Whether its data are there."""
        return self.reference_energies.exists()

    def read_config(self) -> RunConfig:
        """The configuration in config.yaml.

        Raises:
            InputError: there is no run here.
        """
        if not self.config.is_file():
            raise InputError(f"{self.path}: holds no config.yaml, so there is no run to go on with")
        return read_settings(RunConfig, self.config)

    def write_config(self, config: RunConfig) -> None:
        """Write config.yaml, and once more where nobody edits it."""
        write_text(self.config, to_yaml(config))
        write_text(self.started_with, to_yaml(config))

    def read_started_with(self) -> RunConfig:
        """The configuration that the run has been made with so far, whatever config.yaml says by now."""
        return read_settings(RunConfig, self.started_with) if self.started_with.exists() else self.read_config()
