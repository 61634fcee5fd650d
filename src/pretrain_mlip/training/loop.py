"""The training loop: every strategy goes through it, and it can be killed at any moment.

After every epoch the whole state (weights, averages, optimiser, schedule, early stopping, history) is moved into place
as ``last.pt``; the order of structures in an epoch depends on the seed and the number of the epoch only. A run that is
resumed hence ends with the weights of an uninterrupted one, to the bit on one CPU process with equal threads.
"""

from __future__ import annotations

import csv
import io
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Sampler
from torch_geometric.data import Data

from pretrain_mlip import keys
from pretrain_mlip.console import progress_bar
from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.files import make_folder, write_text
from pretrain_mlip.graphs.graph import device_named, make_batch
from pretrain_mlip.potentials.base import Potential
from pretrain_mlip.potentials.checkpoint import checkpoint_content, read_checkpoint, write_checkpoint
from pretrain_mlip.potentials.compiled import compiled
from pretrain_mlip.potentials.networks.base import Network
from pretrain_mlip.training.loss import error_sums, weighted_loss
from pretrain_mlip.training.settings import TrainingSettings

log = logging.getLogger(__name__)
Row = dict[str, Any]  # numbers by column
MAX_SKIPPED = 20  # steps with a loss that is not finite before a run gives up


@dataclass
class TrainingResult:
    """What a training ends with: the network with its best averaged weights, and one row per epoch."""

    network: Network
    history: list[Row] = field(default_factory=list)
    best_epoch: int = 0
    steps: int = 0


class _EpochBatches(Sampler[list[int]]):
    """Batches in an order that depends on the seed and the epoch only."""

    def __init__(self, size: int, batch_size: int, seed: int) -> None:
        self.size, self.batch_size, self.seed, self.epoch = size, batch_size, seed, 0

    def __len__(self) -> int:
        return math.ceil(self.size / self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.size).tolist()
        for start in range(0, self.size, self.batch_size):
            yield order[start : start + self.batch_size]


class Training:
    """A training in a folder: started, or continued where ``last.pt`` says it was."""

    def __init__(
        self,
        network: Network,
        train: Sequence[Data],
        validation: Sequence[Data],
        settings: TrainingSettings,
        folder: Path,
        *,
        seed: int = 0,
        deploy: Callable[[Network], Potential] = lambda network: network,
        device: str = "cpu",
    ) -> None:
        """Set up a training; nothing runs yet.

        Args:
            network: with its scales set; trained in place.
            train: graphs with labels, from which everything that ``deploy`` adds is already subtracted.
            validation: likewise.
            settings: of the loop.
            folder: receives last.pt, best.pt, log.csv.
            seed: of the order of structures.
            deploy: what is saved for use, given the network: its sum with reference energies, say.
            device: "cpu", "cuda" or "auto".

        Raises:
            InputError: there is nothing to train or validate on, the folder cannot be written, or there is no C++
                compiler for a network that is to be compiled.
        """
        if not train or not validation:
            raise InputError(
                f"training in {folder} needs training and validation structures (got {len(train)}, {len(validation)})"
            )
        self.settings, self.folder, self.seed, self.deploy = settings, make_folder(folder), seed, deploy
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
        place = device_named(device)
        double = next(network.parameters()).dtype == torch.float64
        self.fabric = Fabric(
            accelerator=place.type,
            devices=1 if place.index is None else [place.index],
            precision="64-true" if double else "32-true",
        )
        self.network = network
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.batches = _EpochBatches(len(train), settings.batch_size, seed)
        self.total_steps = settings.epochs * len(self.batches)
        self.scheduler = LambdaLR(optimizer, self._rate)
        network.set_products(settings.products)
        # What is compiled holds the network, and shares its weights; validation and files take the network itself
        self.module, self.optimizer = self.fabric.setup(compiled(network) if settings.compile else network, optimizer)
        self.average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(settings.ema_decay))
        self.averaged = cast("Network", self.average.module)
        loader = DataLoader(list(train), batch_sampler=self.batches, collate_fn=make_batch)  # type: ignore[arg-type]
        self.loader = self.fabric.setup_dataloaders(loader, use_distributed_sampler=False)
        self.validation = [
            make_batch(validation[i : i + 4 * settings.batch_size]).to(str(self.fabric.device))
            for i in range(0, len(validation), 4 * settings.batch_size)
        ]
        self.epoch, self.step, self.skipped = 0, 0, 0
        self.history: list[Row] = []
        self.best, self.best_epoch, self.finished = math.inf, 0, False

    def run(self) -> TrainingResult:
        """Train to the end, from where last.pt left off if it is there; returns the best network.

        Raises:
            ComputationError: the loss was not finite too often.
            InputError: last.pt is not a checkpoint of this training.
        """
        if (self.folder / "last.pt").exists():
            self._restore()
        with progress_bar() as bar:
            task = bar.add_task(self.folder.name, total=self.settings.epochs, completed=self.epoch, note="")
            while not self.finished:
                row = self._run_epoch()
                bar.update(task, completed=self.epoch, note=_note(row))
        best = read_checkpoint(self.folder / "best.pt")
        self.network.load_state_dict(best["network"])
        self.network.eval()
        return TrainingResult(self.network, self.history, self.best_epoch, self.step)

    def _run_epoch(self) -> Row:
        start = time.perf_counter()
        self.batches.epoch = self.epoch
        loss = self._train_epoch()
        self.epoch += 1
        row: Row = {
            "epoch": self.epoch,
            "step": self.step,
            "learning_rate": self.scheduler.get_last_lr()[0],
            "loss": loss,
        }
        if self.epoch % self.settings.validate_every == 0 or self.epoch == self.settings.epochs:
            row |= self._validate()
            metric = row.get(f"val_{self.settings.metric}_mae", math.nan)
            if metric < self.best:
                self.best, self.best_epoch = metric, self.epoch
                network = self.averaged
                write_checkpoint(
                    self.folder / "best.pt",
                    checkpoint_content(self.deploy(network), network=network.state_dict(), epoch=self.epoch),
                )
        row["seconds"] = time.perf_counter() - start
        self.history.append(row)
        patience = self.settings.patience
        waited = patience is not None and self.epoch - self.best_epoch >= patience
        validated = f"val_{self.settings.metric}_mae" in row
        self.finished = self.epoch >= self.settings.epochs or (waited and validated)
        if self.finished and not math.isfinite(self.best):
            raise ComputationError(
                f"{self.folder}: no validation gave a finite error of the {self.settings.metric}; "
                "lower learning_rate, or look at the validation structures with 'datasets info'"
            )
        self._save()
        if self.finished:
            log.info(
                "%s: %d epochs, best %d: %s",
                self.folder.name,
                self.epoch,
                self.best_epoch,
                _note(self.history[self.best_epoch - 1]),
            )
        return row

    def _train_epoch(self) -> float:
        self.module.train()
        scale = float(self.network.energy_scale)
        losses = []
        for batch in self.loader:
            graph = cast("Data", batch)
            prediction = self.module(graph, stress=self.settings.loss.stress > 0, create_graph=True)
            loss = weighted_loss(prediction, graph, self.settings.loss, scale)
            self.optimizer.zero_grad()
            self.fabric.backward(loss)
            self.step += 1
            norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip)
            if torch.isfinite(loss) and torch.isfinite(norm):
                self.optimizer.step()
                self.average.update_parameters(self.network)
                losses.append(float(loss.detach()))
            else:
                self._skip()
            self.scheduler.step()
        return float(np.mean(losses)) if losses else math.nan

    def _skip(self) -> None:
        self.skipped += 1
        log.warning("%s: the loss of step %d is not finite; step skipped", self.folder.name, self.step)
        if self.skipped > MAX_SKIPPED:
            raise ComputationError(
                f"{self.folder}: the loss was not finite in {self.skipped} steps; lower learning_rate, "
                "or look at the labels with 'datasets info'"
            )

    def _validate(self) -> Row:
        self.average.eval()
        totals: dict[str, list[float]] = {name: [0.0, 0.0] for name in keys.LABELS}
        for graph in self.validation:
            prediction = self.averaged(graph)
            for name, (total, count) in error_sums(prediction, graph).items():
                totals[name][0] += total
                totals[name][1] += count
        return {f"val_{name}_mae": total / count for name, (total, count) in totals.items() if count}

    def _rate(self, step: int) -> float:
        """Learning rate at a step, of the highest."""
        warmup = self.settings.warmup_epochs * len(self.batches)
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if self.settings.schedule == "constant":
            return 1.0
        progress = min(1.0, (step - warmup) / max(1.0, self.total_steps - warmup))
        floor = self.settings.final_learning_rate
        return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * progress))

    def _save(self) -> None:
        state = {
            "settings": self.settings.model_dump(mode="json"),
            "seed": self.seed,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "skipped": self.skipped,
            "history": self.history,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "finished": self.finished,
        }
        write_checkpoint(self.folder / "last.pt", checkpoint_content(self.deploy(self.averaged), training=state))
        write_text(self.folder / "log.csv", _csv(self.history))

    def _restore(self) -> None:
        path = self.folder / "last.pt"
        state = read_checkpoint(path).get("training")
        if state is None:
            raise InputError(f"{path}: holds no state of a training to resume from")
        if state["settings"] != self.settings.model_dump(mode="json") or state["seed"] != self.seed:
            raise InputError(f"{path}: was written with other settings; resume with the same, or choose another folder")
        try:
            self.network.load_state_dict(state["network"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scheduler.load_state_dict(state["scheduler"])
        except (RuntimeError, KeyError, ValueError) as error:
            raise InputError(f"{path}: belongs to another network ({str(error).splitlines()[0]})") from error
        for name in ("epoch", "step", "skipped", "history", "best", "best_epoch", "finished"):
            setattr(self, name, state[name])
        if not self.finished:
            log.info("%s: resumed after epoch %d of %d", self.folder.name, self.epoch, self.settings.epochs)


def is_finished(folder: Path) -> bool:
    """Whether the training in a folder has reached its end."""
    if not (folder / "best.pt").exists() or not (folder / "last.pt").exists():
        return False
    state = read_checkpoint(folder / "last.pt").get("training")
    return state is not None and bool(state["finished"])


def _note(row: Row) -> str:
    parts = [f"loss {row['loss']:.4f}"]
    if "val_energy_mae" in row:
        parts.append(f"val E {1e3 * row['val_energy_mae']:.1f} meV/atom")
    if "val_forces_mae" in row:
        parts.append(f"F {1e3 * row['val_forces_mae']:.0f} meV/Å")
    return ", ".join(parts)


def _csv(history: Sequence[dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(name for row in history for name in row))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, restval="")
    writer.writeheader()
    writer.writerows(history)
    return stream.getvalue()
