"""A network and data so small that a training takes a second."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from torch_geometric.data import Data

from pretrain_mlip.potentials.base import ReferenceEnergies
from pretrain_mlip.potentials.networks import build_model
from pretrain_mlip.potentials.networks.base import Network
from pretrain_mlip.structures.datasets import load_dataset
from pretrain_mlip.training.loop import Training, TrainingResult
from pretrain_mlip.training.settings import TrainingSettings
from pretrain_mlip.training.stages import residual_graphs

SMALL = {"width": 8, "convolutions": 1, "gaussians": 8, "cutoff": 3.5}
SETTINGS = TrainingSettings(epochs=5, batch_size=3, learning_rate=0.01)
E0 = ReferenceEnergies({"O": -327.0, "Si": -327.0})


def graphs(start: int, stop: int) -> list[Data]:
    return residual_graphs(load_dataset("silica_mini")[start:stop], SMALL["cutoff"], E0)


def small_network() -> Network:
    network = build_model("cgcnn", E0.elements, seed=1, **SMALL)
    network.set_scales(5.0, 15.0)
    return network


def train(folder: Path, settings: TrainingSettings = SETTINGS, **changes: object) -> TrainingResult:
    return Training(small_network(), graphs(0, 8), graphs(8, 11), settings, folder, **changes).run()  # type: ignore[arg-type]


@contextmanager
def killed_after(epoch: int) -> Iterator[None]:
    """Trainings end as soon as they have written the state of an epoch."""
    save = Training._save

    def interrupted(self: Training) -> None:
        save(self)
        if self.epoch == epoch:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Training, "_save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            yield
