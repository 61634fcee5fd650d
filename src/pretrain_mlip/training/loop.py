"""The training loop: every strategy goes through it, and it can be stopped at any moment.

After every epoch, every few minutes within one, and where it is asked to stop (SIGTERM, Ctrl-C), the whole state goes
to ``last.pt``: weights, averages, optimiser, schedule, random numbers, early stopping, history, and the number of the
batch. The order of structures depends on the seed and the epoch alone. A run that is resumed hence ends with the
weights of an uninterrupted one, to the bit on CPU processes of the same number with equal threads.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset, Sampler
from torch_geometric.data import Data

from pretrain_mlip import keys
from pretrain_mlip.console import progress_bar
from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.graphs.graph import make_batch
from pretrain_mlip.graphs.sequences import Joined, edge_counts, fingerprint, kinds
from pretrain_mlip.potentials.base import Potential, dtype_named
from pretrain_mlip.potentials.checkpoint import checkpoint_content
from pretrain_mlip.potentials.compiled import compiled
from pretrain_mlip.potentials.networks.base import Network
from pretrain_mlip.stopping import StopRequest, stop_signals
from pretrain_mlip.training.batches import Batches, InOrder, Place
from pretrain_mlip.training.board import Board
from pretrain_mlip.training.loss import LossTerm, error_sums, loss_terms, weighted_loss
from pretrain_mlip.training.processes import LostProcessError, Together, lost_processes, one_process
from pretrain_mlip.training.sam import Ascent
from pretrain_mlip.training.schedules import Schedule
from pretrain_mlip.training.settings import TrainingSettings
from pretrain_mlip.training.state import Row, TrainingFolder, note_of, note_of_kinds, read_best, refuse_another

log = logging.getLogger(__name__)
IDLE = 0.95  # of the error of a network without forces
MAX_SKIPPED = 20  # steps with a loss that is not finite before a run gives up
_COUNTERS = ("epoch", "batch", "step", "skipped", "losses", "history", "best", "best_epoch", "finished")


@dataclass
class TrainingResult:
    """What a training ends with: the network with its best averaged weights, and one row per epoch."""

    network: Network
    history: list[Row] = field(default_factory=list)
    best_epoch: int = 0
    steps: int = 0


class _Structures(Dataset[Data]):
    """Graphs by their place in a batch."""

    def __init__(self, graphs: Sequence[Data]) -> None:
        self.graphs = graphs

    def __getitem__(self, place: Place) -> Data:
        graph = self.graphs[place.index]
        if place.counts:
            return graph
        graph = graph.clone()
        for name in keys.LABELS:  # what has no label adds nothing to any sum
            graph[name] = torch.full_like(graph[name], math.nan)
        return graph


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
        fabric: Fabric | None = None,
        replayed: Sequence[Data] = (),
        replay_size: int = 0,
    ) -> None:
        """Set up a training; nothing runs yet.

        Args:
            network: with its scales set; trained in place, but for parameters that need no gradient.
            train: graphs with labels, from which everything that ``deploy`` adds is already subtracted.
            validation: likewise.
            settings: of the loop.
            folder: receives last.pt, before.pt, best.pt, log.csv.
            seed: of the order of structures.
            deploy: what is saved for use, given the network: its sum with reference energies, say.
            fabric: launched; where and in how many processes it runs. None: one process on the CPU.
            replayed: graphs that belong to no epoch, but join every batch.
            replay_size: how many of them join a batch.

        Raises:
            InputError: there is nothing to train or validate on, a structure has too many edges for a batch, the folder
                cannot be written, or there is no C++ compiler for a network that is to be compiled.
        """
        if not len(train) or not len(validation):
            found = f"{len(train)}, {len(validation)}"
            raise InputError(f"training in {folder} needs training and validation structures (got {found})")
        rate = settings.learning_rate or network.learning_rate
        self.settings = settings = settings.model_copy(update={"learning_rate": rate})
        self.seed, self.deploy = seed, deploy
        self.folder = TrainingFolder(folder)
        self.fabric = fabric or one_process()
        self.together = Together(self.fabric)
        network.set_dtype(dtype_named(settings.dtype))
        self.network = network
        if self.fabric.world_size > 1:  # on other machines rounding may differ
            network.load_state_dict(self.fabric.broadcast(network.state_dict()))
        self.trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(self.trained, lr=rate, weight_decay=settings.weight_decay)
        self.ascent = None if settings.sam_rho is None else Ascent(self.trained, settings.sam_rho)
        self.schedule = Schedule(optimizer, settings)
        network.set_products(settings.products)
        # What is compiled holds the network, and shares its weights; validation and files take the network itself
        self.module, self.optimizer = self.fabric.setup(compiled(network) if settings.compile else network, optimizer)
        self.average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(settings.ema_decay))
        self.averaged = cast("Network", self.average.module)
        self._set_up_data(train, validation, replayed, replay_size)
        self._asked = StopRequest()
        self.board: Board | None = None
        self.started = time.monotonic()
        self.epoch, self.batch, self.step, self.skipped = 0, 0, 0, 0
        self.losses = (0.0, 0)  # sum and number of those of the epoch
        self.history: list[Row] = []
        self.best, self.best_epoch, self.finished = math.inf, 0, False
        self.idle: float | None = None  # error of a network without forces

    def _set_up_data(
        self, train: Sequence[Data], validation: Sequence[Data], replayed: Sequence[Data], replay_size: int
    ) -> None:
        if self.settings.batch_size > len(train):
            log.warning(
                "%s: batch_size %d is more than the %d training structures: every epoch is one gradient step",
                *(self.folder.path, self.settings.batch_size, len(train)),
            )
        settings, graphs = self.settings, Joined(train, replayed)
        shares = {"rank": self.fabric.global_rank, "processes": self.fabric.world_size}
        self.batches = Batches(
            graphs.edges,
            settings.batch_size,
            self.seed,
            max_edges=settings.max_edges,
            replayed=len(replayed),
            replay_size=replay_size,
            name_of=lambda index: graphs[index][keys.STRUCTURE_ID],
            **shares,
        )
        self.loader = self._loader(graphs, self.batches)
        self.validation = self._loader(
            validation, InOrder(edge_counts(validation), 4 * settings.batch_size, settings.max_edges, **shares)
        )
        self.kinds = {kind: number for number, kind in enumerate(sorted(kinds(validation)))}
        if not any(graph[settings.metric].isfinite().any() for graph in validation):
            raise InputError(
                f"training in {self.folder.path}: no validation structure has a label of the {settings.metric}, which "
                "'metric' chooses the best epoch by; choose another"
            )
        frozen = [name for name, parameter in self.network.named_parameters() if not parameter.requires_grad]
        self.identity = {
            "settings": settings.model_dump(mode="json"),
            "seed": self.seed,
            "network": self.network.config(),
            "frozen": frozen,
            "replay_size": self.batches.replay_size,
            "structures": fingerprint([train, replayed, validation]),
        }

    def run(self) -> TrainingResult:
        """Train to the end, from where last.pt left off if it is there; returns the best network.

        Raises:
            ComputationError: the loss was not finite too often, or the disk is full.
            InputError: last.pt is not a checkpoint of this training.
            KeyboardInterrupt: it was asked to stop (SIGTERM, Ctrl-C), and last.pt has been written.
            LostProcessError: another process of this training has ended.
        """
        try:
            with lost_processes():
                return self._run()
        except LostProcessError:
            if self._asked:  # all were, and the other has heard it where it could not say so
                raise KeyboardInterrupt from None
            raise

    def _run(self) -> TrainingResult:
        self._restore()
        with progress_bar() as bar, stop_signals() as self._asked, self._board() as self.board:
            task = bar.add_task(self.folder.path.name, total=self.settings.epochs, completed=self.epoch, note="")
            while not self.finished:
                steps = len(self.batches.plan(self.epoch))
                for loss in self._train_epoch(steps):
                    bar.update(task, completed=self._epochs(steps), note=note_of({**self._last_row(), "loss": loss}))
                self._end_epoch()
            if self._told_to_stop():  # after the last step: what comes after the training is not wanted either
                raise KeyboardInterrupt
        best = self.together.of_first(lambda: read_best(self.folder.best))
        self.network.load_state_dict(best["network"])
        self.network.eval()
        return TrainingResult(self.network, self.history, self.best_epoch, self.step)

    def _train_epoch(self, steps: int) -> Iterator[float]:
        """Go through the batches that are left of an epoch; yields the mean loss so far."""
        self.module.train()
        self.batches.epoch, self.batches.start = self.epoch, self.batch
        self.started = saved = time.monotonic()
        for batch in self.loader:
            self.schedule.step(self._epochs(steps))
            loss = self._step(cast("Data", batch))
            self.step += 1
            self.batch += 1
            if loss is not None:
                self.losses = (self.losses[0] + loss, self.losses[1] + 1)
            if self._told_to_stop():
                self._save()
                log.info("%s: stopped in epoch %d, after step %d", self.folder.path, self.epoch + 1, self.step)
                raise KeyboardInterrupt
            if time.monotonic() - saved > 60 * self.settings.checkpoint_minutes:
                self._save()
                saved = time.monotonic()
            yield self._mean_loss()

    def _step(self, graph: Data) -> float | None:
        """A gradient step; its loss before the step, or None where that was not finite and nothing was changed."""
        loss = self._backward(graph)
        if self.ascent is not None and math.isfinite(loss):
            self.ascent.climb()
            self._backward(graph)
            self.ascent.descend()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip)
        if not (math.isfinite(loss) and torch.isfinite(norm)):
            self._skip(graph)
            return None
        self.optimizer.step()
        self.average.update_parameters(self.network)
        return loss

    def _backward(self, graph: Data) -> float:
        """Gradients of the loss of a batch, which processes share; returns the loss."""
        settings = self.settings.loss
        prediction = self.module(graph, stress=settings.stress.used, create_graph=True)
        terms = loss_terms(prediction, graph, settings, float(self.network.energy_scale))
        if self.fabric.world_size > 1:  # costs are to be divided by what all of them count
            shared = self.together.sum(torch.stack([term.count for term in terms.values()]))
            terms = {name: LossTerm(terms[name].total, count) for name, count in zip(terms, shared, strict=True)}
        loss = weighted_loss(terms, settings, self.schedule.epochs / self.settings.epochs)
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        if self.fabric.world_size > 1:
            self.together.sum_gradients(self.trained)
        return float(self.together.sum(loss.detach()))

    def _told_to_stop(self) -> bool:
        return self.together.any(bool(self._asked))

    def _skip(self, graph: Data) -> None:
        self.skipped += 1
        # Of labels and predictions alike; the gradient alone may overflow too, and then any of them may be at fault
        sums = torch.stack(list(error_sums(self.network(graph), graph).values()))
        finite = sums.isfinite().all(dim=2).all(dim=0).tolist()
        names = graph[keys.STRUCTURE_ID]
        strange = self.together.all_of([name for name, fine in zip(names, finite, strict=True) if not fine])
        strange = strange or self.together.all_of(names)
        found = f" ({', '.join(strange)})"
        log.warning("%s: the loss of step %d is not finite, step skipped%s", self.folder.path, self.step + 1, found)
        if self.skipped > MAX_SKIPPED:
            raise ComputationError(
                f"{self.folder.path}: the loss was not finite in {self.skipped} steps, the last{found}; lower "
                "learning_rate, or look at the labels with 'datasets info'"
            )

    def _end_epoch(self) -> None:
        """Validate, keep the best, and write the state."""
        loss = self._mean_loss()
        self.epoch, self.batch, self.losses = self.epoch + 1, 0, (0.0, 0)
        row: Row = {"epoch": self.epoch, "step": self.step, "skipped": self.skipped}
        row |= {"learning_rate": self.schedule.rate, "loss": loss}
        settings = self.settings
        validated = self.epoch % settings.validate_every == 0 or self.epoch == settings.epochs
        if validated:
            row |= self._validate()
            error = row.get(f"val_{settings.metric}_mae", math.nan)
            self.schedule.validated(error)
            if error < self.best:
                self.best, self.best_epoch = error, self.epoch
                self._save_best()
        row["seconds"] = time.monotonic() - self.started
        self.history.append(row)
        if self.board is not None:
            self.board.add(row)
        waited = settings.patience is not None and self.epoch - self.best_epoch >= settings.patience
        self.finished = self.epoch >= settings.epochs or (waited and validated)
        if self.finished and not math.isfinite(self.best):
            raise ComputationError(
                f"{self.folder.path}: no validation gave a finite error of the {settings.metric}; "
                "lower learning_rate, or look at the validation structures with 'datasets info'"
            )
        self._save()
        if self.finished:
            best = self.history[self.best_epoch - 1]
            name = self.folder.path.name
            log.info("%s: %d epochs, best %d: %s", name, self.epoch, self.best_epoch, note_of(best))
            self._warn_of_idleness(best)
            if note := note_of_kinds(best, self.kinds):
                log.info("%s: validation errors by kind, meV/atom and meV/Å: %s", name, note)

    @contextmanager
    def _board(self) -> Iterator[Board | None]:
        """The curves for TensorBoard, where they are asked for."""
        if not self.settings.tensorboard or not self.fabric.is_global_zero:
            yield None
            return
        with closing(Board(self.folder.path / "tensorboard", self.history)) as board:
            yield board

    def _validate(self) -> Row:
        """Mean absolute errors of the averaged weights, of all structures and of each kind."""
        self.average.eval()
        totals = torch.zeros(len(self.kinds), len(keys.LABELS), 2, dtype=torch.float64, device=self.fabric.device)
        sizes = torch.zeros(2, dtype=torch.float64, device=self.fabric.device)
        for batch in self.validation:
            graph = cast("Data", batch)
            sums = error_sums(self.averaged(graph), graph)
            forces = graph[keys.FORCES][graph[keys.FORCES].isfinite()]
            sizes += torch.tensor([forces.abs().sum(), forces.numel()], device=sizes.device)
            kinds = torch.tensor([self.kinds[kind] for kind in graph[keys.CONFIG_TYPE]], device=totals.device)
            totals.index_add_(0, kinds, torch.stack([sums[name] for name in keys.LABELS], dim=1))
        totals = self.together.sum(totals).cpu()
        total, number = self.together.sum(sizes).tolist()
        self.idle = total / number if number else None
        row = _errors("", totals.sum(0))
        if len(self.kinds) > 1:
            for kind, number in self.kinds.items():
                row |= _errors(f"[{kind}]", totals[number])
        return row

    def _warn_of_idleness(self, best: Row) -> None:
        """Networks whose units are saturated by too large a step predict no forces at all, and look trained."""
        error = best.get("val_forces_mae")
        if error is not None and self.idle and error > IDLE * self.idle:
            log.warning(
                "%s: the forces of this network are hardly better than none: it errs by %.0f meV/Å where labels are "
                "%.0f in the mean; try a lower learning_rate, or more epochs",
                *(self.folder.path, 1e3 * error, 1e3 * self.idle),
            )

    def _save_best(self) -> None:
        if self.fabric.is_global_zero:
            network = self.averaged
            self.folder.write_best(
                checkpoint_content(self.deploy(network), network=network.state_dict(), epoch=self.epoch)
            )

    def _save(self) -> None:
        if not self.fabric.is_global_zero:
            return
        state = {
            "identity": self.identity,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "random": torch.get_rng_state(),
        } | {name: getattr(self, name) for name in _COUNTERS}
        content = checkpoint_content(self.deploy(self.averaged), training=state)
        self.folder.write_last(content, self.history)

    def _restore(self) -> None:
        found = self.together.of_first(self.folder.read_last)
        if found is None:
            return
        path, state = found
        refuse_another(path, state, self.identity)
        if state["best_epoch"]:
            self.together.of_first(lambda: read_best(self.folder.best))
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["random"])
        for name in _COUNTERS:
            setattr(self, name, state[name])
        if not self.finished:
            where = f"epoch {self.epoch} of {self.settings.epochs}"
            batch = f" and {self.batch} batches" if self.batch else ""
            log.info("%s: resumed after %s%s", self.folder.path.name, where, batch)

    def _loader(self, graphs: Sequence[Data], sampler: Sampler[list[Place]]) -> DataLoader[Data]:
        loader = DataLoader(_Structures(graphs), batch_sampler=sampler, collate_fn=make_batch)
        return cast("DataLoader[Data]", self.fabric.setup_dataloaders(loader, use_distributed_sampler=False))

    def _epochs(self, steps: int) -> float:
        """Epochs that have passed, in one of so many steps."""
        return self.epoch + self.batch / steps

    def _mean_loss(self) -> float:
        total, number = self.losses
        return total / number if number else math.nan

    def _last_row(self) -> Row:
        """The newest validation."""
        return next((row for row in reversed(self.history) if "val_energy_mae" in row), {})


def _errors(kind: str, sums: Tensor) -> Row:
    """Mean absolute errors from sums and numbers (3, 2), where there are labels."""
    return {
        f"val_{name}_mae{kind}": total / number
        for name, (total, number) in zip(keys.LABELS, sums.tolist(), strict=True)
        if number
    }
