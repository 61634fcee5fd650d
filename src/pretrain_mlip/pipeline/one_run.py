"""What one run consists of, from its data to its report."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from pretrain_mlip.config import RunConfig
from pretrain_mlip.dynamics.survival import StabilitySettings, check_starts
from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.keys import CONFIG_TYPE
from pretrain_mlip.parallel import Workers
from pretrain_mlip.pipeline import preparation, soundness, trials
from pretrain_mlip.pipeline.folder import FOUNDATION, RunFolder
from pretrain_mlip.pipeline.provenance import provenance
from pretrain_mlip.pipeline.strategies import needs_perturbation, stage_settings, train_strategies
from pretrain_mlip.potentials.eam.embedded_atom import EmbeddedAtom
from pretrain_mlip.potentials.eam.inputs import elements_of
from pretrain_mlip.potentials.eam.setfl_reading import read_setfl
from pretrain_mlip.potentials.eam.tabulated import TabulatedEAM
from pretrain_mlip.report.html import write_report
from pretrain_mlip.report.results import FILE_NAME, Results
from pretrain_mlip.settings import changes, flattened
from pretrain_mlip.structures.checks import summarise
from pretrain_mlip.structures.labels import labels_of
from pretrain_mlip.structures.splits import Splits
from pretrain_mlip.training.processes import TorchrunGroup
from pretrain_mlip.training.settings import WITHOUT_EFFECT
from pretrain_mlip.training.stages import STRATEGIES

log = logging.getLogger(__name__)
# Group of settings -> section of the results
TRIALS = {"stability": "survival", "squeeze": "squeeze", "rdf": "rdf"}
EXAMINATIONS = ("verification", "phonons")  # groups of settings and sections that may be asked for at any time
Until = Literal["preparation", "training", "report"]


class Run:
    """The steps of a run in its folder; what is there already is only read."""

    def __init__(
        self, folder: RunFolder, config: RunConfig, workers: Workers, group: TorchrunGroup | None = None
    ) -> None:
        self.folder, self.config, self.workers, self.group = folder, config, workers, group
        found = (folder.path / FILE_NAME).exists()
        self.results = (
            Results.read(folder.path) if found else Results(title=f"pretrain-mlip: {Path(config.output).name}")
        )
        self.timings: dict[str, float] = dict(self.results.timings or {})

    def make(self, until: Until) -> None:
        """Make what is missing, up to a step."""
        log.info("run in %s", self.folder.path)
        torch.set_num_threads(self.config.threads)
        with self._timed("data"):
            splits = preparation.prepare_data(self.folder, self.config.data, self._refuse_zero_forces)
            if until == "report":
                self._refuse_early(splits)
            self._describe_data(splits)
        with self._timed("EAM"):
            eam = preparation.prepare_eam(self.folder, splits, self.config)
            self._describe_eam(eam, splits)
        if needs_perturbation(self.config):
            with self._timed("perturbation"):
                counts = preparation.prepare_pretraining(self.folder, splits, eam, self.config, self.workers)
                if self.results.dataset is not None:
                    self.results.dataset.pretraining_frames = counts["kept"]
        preparation.prepare_foundation(self.folder, splits, eam, self.config)
        if until == "preparation":
            self._write()
            return
        with self._timed("training"):
            names = train_strategies(self.folder, self.config, self.workers, self.group)
            self._describe_training(names)
        if until == "training":
            self._write()
            return
        foundation = [FOUNDATION] if self.config.finetuning.start is not None else []
        everything = [trials.EAM_NAME, *foundation, *names]
        if self.results.errors is None:
            self._test(everything, splits, eam)
        self._examine(everything, eam)
        self._dynamics(everything, splits)
        if self.results.provenance is None:  # of the session that finished the run, not of one that looked again
            self._add({"provenance": self._provenance()})
        self._add({"config": self.config.model_dump(mode="json")})
        self._write()
        write_report(self.folder.path)

    def _refuse_early(self, splits: Splits) -> None:
        """What later steps would refuse, the last of them after an hour."""
        if self.config.eam.setfl is not None and not self.folder.eam.exists():
            read_setfl(self.config.eam.setfl, elements_of(splits.train))
        if self.config.rdf is not None and self.results.rdf is None:
            trials.rdf_structures(splits, self.config.rdf)
        if self.config.phonons is not None and not is_examined(self.results, self.config, "phonons"):
            soundness.crystals(self.folder, self.config.phonons, elements_of(splits.train))
        for _, settings in self._campaigns():
            check_starts(splits.test or splits.val, settings)

    def _refuse_zero_forces(self, splits: Splits) -> None:
        """Nothing can be learned of forces that are not there, and nothing told of it but by a useless potential."""
        fitted = self.config.eam.setfl is None and self.config.eam.forces_weight > 0
        known = [labels_of(atoms).forces for atoms in splits.train if len(atoms) > 1]
        labelled = [forces for forces in known if forces is not None]
        if (fitted or self.config.training.loss.forces.used) and labelled and not any(map(np.any, labelled)):
            raise InputError(
                f"{', '.join(self.config.data.source)}: all forces of the training set are exactly zero; name their "
                "label with data.keys.forces_key, or, if they are right, leave forces out: training.loss.forces=0 "
                "eam.forces_weight=0"
            )

    def _campaigns(self) -> list[tuple[str, StabilitySettings]]:
        """Sections of the results that are still to be made by MD of several replicas."""
        campaigns: tuple[tuple[str, StabilitySettings | None], ...] = (
            ("survival", self.config.stability),
            ("squeeze", self.config.squeeze),
        )
        return [(name, settings) for name, settings in campaigns if settings and getattr(self.results, name) is None]

    def _test(self, everything: list[str], splits: Splits, eam: EmbeddedAtom) -> None:
        with self._timed("tests"):
            frames = splits.test or splits.val
            self._add(trials.test_errors(self.folder, everything, frames, self.config.device))
            self._add(trials.dimer_scans(self.folder, everything, eam.elements))
            distances, closest = trials.pair_distances(self.folder, splits)
            self._add({"pair_distances": distances or None})
            if self.results.dataset is not None:
                self.results.dataset.closest = {**closest}
        self._write()

    def _examine(self, names: list[str], eam: EmbeddedAtom) -> None:
        """Verification and phonons, unless an earlier session of this run has them, of the same settings."""
        checks, phonons = self.config.verification, self.config.phonons
        wanted = [group for group in EXAMINATIONS if getattr(self.config, group) is not None]
        # What was made with other settings goes first, since the settings of both are kept together
        self._add({group: None for group in wanted if not is_examined(self.results, self.config, group)})
        if checks is not None and self.results.verification is None:
            with self._timed("verification"), self._not_fatal():
                found = soundness.verification(self.folder, names, eam.elements, checks, self.config, self.workers)
                self._add({"verification": found, "config": self.config.model_dump(mode="json")})
            self._write()
        if phonons is not None and self.results.phonons is None:
            with self._timed("phonons"), self._not_fatal():
                crystals = soundness.crystals(self.folder, phonons, eam.elements)
                found = soundness.phonon_bands(self.folder, names, crystals, phonons, self.config, self.workers)
                self._add({"phonons": found, "config": self.config.model_dump(mode="json")})
            self._write()

    @contextmanager
    def _not_fatal(self) -> Iterator[None]:
        """What comes next needs none of it, and started again the run tries once more."""
        try:
            yield
        except ComputationError as error:
            log.warning("%s; the report goes without", error)

    def _dynamics(self, names: list[str], splits: Splits) -> None:
        """Survival and RDF, unless an earlier session of this run has them."""
        for section, settings in self._campaigns():
            with self._timed("MD"):
                self._add(
                    {section: trials.survival(self.folder, section, names, splits, settings, self.config, self.workers)}
                )
            self._write()
        rdf = self.config.rdf
        if rdf is not None and self.results.rdf is None:
            with self._timed("RDF"):
                self._add(
                    {"rdf": trials.radial_distributions(self.folder, names, splits, rdf, self.config, self.workers)}
                )
            self._write()

    def _describe_data(self, splits: Splits) -> None:
        if self.results.dataset is not None:
            return
        frames = [atoms for part in splits for atoms in part]
        for name, value in summarise(frames).items():
            log.info("data: %s: %s", name, value)
        symbols = sorted({symbol for atoms in frames for symbol in atoms.symbols})
        kinds = Counter(str(atoms.info.get(CONFIG_TYPE, "(none)")) for atoms in frames)
        self._add(
            {
                "dataset": {
                    "name": ", ".join(Path(name).name for name in self.config.data.source),
                    "frames": len(frames),
                    "atoms": sum(len(atoms) for atoms in frames),
                    "elements": symbols,
                    "config_types": dict(sorted(kinds.items())),
                },
                "splits": {"train": len(splits.train), "val": len(splits.val), "test": len(splits.test)},
            }
        )

    def _describe_eam(self, eam: EmbeddedAtom, splits: Splits) -> None:
        from pretrain_mlip.calculators.batched import predict
        from pretrain_mlip.validation.errors import error_table

        if self.results.eam is not None:
            return
        held_out = splits.test or splits.val
        errors = {
            name: error_table(frames, predict(eam, frames, description=f"EAM on {name}"))["all"]
            for name, frames in (("train", splits.train), ("test", held_out))
        }
        curves = preparation.eam_curves(eam)
        fixed = isinstance(eam, TabulatedEAM)
        self._add(
            {
                "eam": {
                    "elements": list(eam.elements),
                    "pairs": list(curves),
                    "cutoff": eam.cutoff,
                    "form": f"eam/{eam.form}" + (f", tables of {eam.report['source']}" if fixed else ""),
                    "parameters": sum(value.numel() for value in eam.parameters()),
                    "errors": errors,
                    "starts": eam.report["starts"],
                    "convergence": eam.report["loss"],
                    "repulsive": {pair: found["repulsive"] for pair, found in eam.report["audit"].items()},
                },
                "eam_decomposition": curves,
            }
        )

    def _describe_training(self, names: list[Any]) -> None:
        from pretrain_mlip.potentials.checkpoint import read_checkpoint

        learning = {}
        for name in names:
            last = self.folder.training(name, 0, self.config.ensemble) / "last.pt"
            rows = read_checkpoint(last)["training"]["history"]
            history = [row for row in rows if "val_forces_mae" in row]
            dft = STRATEGIES[name].labels == "dft"
            learning[name] = {
                "epoch": [row["epoch"] for row in history],
                "step": [row["step"] for row in history],
                "dft_steps": [row["step"] if dft else 0 for row in history],
                "train_loss": [row["loss"] for row in history],
                "val_energy_mae": [1e3 * row["val_energy_mae"] for row in history],
                "val_forces_mae": [1e3 * row["val_forces_mae"] for row in history],
                "learning_rate": [row["learning_rate"] for row in history],
            }
            log.info(
                "%s: %d gradient steps of batch size %d",
                name,
                history[-1]["step"],
                stage_settings(self.config, name).batch_size,
            )
        self._add({"learning": learning})

    def _provenance(self) -> dict[str, Any]:
        sources = [path for path in map(Path, self.config.data.source) if path.is_file()]
        files = dict.fromkeys(sources) | {
            self.folder.data(name): frames for name, frames in (self.results.splits or {}).items()
        }
        files |= {self.folder.crystal(name): 1 for name in self.results.phonons or {}}
        return provenance(
            seeds={
                "run": self.config.seed,
                "replicas": self.config.seed + (self.config.stability.seed if self.config.stability else 0),
                "split": self.config.data.split.seed,
                "eam": self.config.eam.seed,
                "perturbation": self.config.perturbation.seed,
            },
            data=files,
            hardware={
                "device": self.config.device,
                "threads": self.config.threads,
                "workers": self.config.workers,
                "processes of a training": self.group.place.size if self.group is not None else self.config.devices,
            },
        )

    def _add(self, sections: dict[str, Any]) -> None:
        """Put validated sections into the results."""
        merged = self.results.model_dump(exclude_unset=True) | sections
        self.results = Results.model_validate(merged)

    def _write(self) -> None:
        self.results.timings = self.timings
        self.results.write(self.folder.path)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        """Add the seconds of a step to those of earlier sessions; a step that only reads what is there costs little."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.timings[name] = self.timings.get(name, 0.0) + time.perf_counter() - start


def is_examined(results: Results, config: RunConfig, group: str) -> bool:
    """Whether one of what may be asked for at any time is there, and made with these settings."""
    made = (results.config or {}).get(group)
    return getattr(results, group) is not None and made == config.model_dump(mode="json")[group]


def settings_of_results(config: RunConfig, besides: Collection[str] = ()) -> dict[str, Any]:
    """What the results of a run depend on, key by key: all but where and how fast it is computed.

    Args:
        config: of the run.
        besides: groups that are left out as well.
    """
    free = {"output", "workers", "device", "threads", "devices", "scheduler", "store_above", *besides}
    settings = flattened(config.model_dump(mode="json", exclude=free))
    return {key: value for key, value in settings.items() if key.split(".")[-1] not in WITHOUT_EFFECT}


def check_same(folder: RunFolder, config: RunConfig) -> None:
    """Refuse to go on with a run under another configuration, but for what does not change results or was not used."""
    results = Results.read(folder.path) if (folder.path / FILE_NAME).exists() else None
    unused = {name for name, section in TRIALS.items() if results is None or getattr(results, section) is None}
    unused.update(EXAMINATIONS)
    if results is None or results.errors is None:
        unused.add("strategies")  # nothing compares them yet: more may be trained in the same folder
    old, new = (settings_of_results(settings, unused) for settings in (folder.read_started_with(), config))
    if found := changes(old, new):
        raise InputError(
            f"{folder.path}: holds a run with another configuration ({found}); "
            "choose another output, or remove the folder"
        )
