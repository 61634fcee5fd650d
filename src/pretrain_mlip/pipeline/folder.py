"""Where a run keeps what: one place for the names of its files."""

from __future__ import annotations

from pathlib import Path

from pretrain_mlip.config import RunConfig
from pretrain_mlip.errors import InputError
from pretrain_mlip.settings import read_settings

FOUNDATION = "foundation"


class RunFolder:
    """The folder of a run. All that a later step needs is in it; it goes on without the input files."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.log = self.path / "log.txt"
        self.eam = self.path / "eam" / "eam.json"
        self.pretraining_counts = self.path / "pretraining" / "counts.json"
        self.reference_energies = self.path / "data" / "reference_energies.json"

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

    @property
    def foundation(self) -> Path:
        """The potential that finetuning starts from where it comes from elsewhere."""
        return self.potential(FOUNDATION)

    def read_config(self) -> RunConfig:
        """The configuration that the run was started with.

        Raises:
            InputError: there is no run here.
        """
        if not self.config.is_file():
            raise InputError(f"{self.path}: holds no config.yaml, so there is no run to go on with")
        return read_settings(RunConfig, self.config)
