"""The search that gave the defaults of every architecture: validation errors over a few settings, one after another.

    python -m benchmarks.hyperparameters FOLDER TRIAL [TRIAL ...]

A trial is ``SYSTEM/MODEL/STRATEGY[/KEY=VALUE,KEY=VALUE...]``, such as
``silica/m3gnet/vanilla/training.learning_rate=2e-3``. Data, EAM and perturbed structures of a system are made once; a
strategy that starts from ``pretrain`` takes that of the same keys of the group ``pretraining``, a trial of its own that
has to come first. Every trial adds a line to FOLDER/trials.jsonl; one that is there is not made again.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

from pretrain_mlip.config import RunConfig
from pretrain_mlip.memory import keep_memory
from pretrain_mlip.pipeline import preparation
from pretrain_mlip.pipeline.folder import RunFolder
from pretrain_mlip.pipeline.run import resolved
from pretrain_mlip.pipeline.strategies import train_strategy
from pretrain_mlip.potentials.checkpoint import read_checkpoint
from pretrain_mlip.settings import read_settings
from pretrain_mlip.training.stages import STRATEGIES

SYSTEMS = {
    "silica": ["data=silica_mini"],
    "far": [
        "data.source=silica_mini",
        "data.split.hold_out=[melt_3000K,melt_4000K,melt_6000K,cristobalite_strained,glass_rattled]",
    ],
    "phosphorus": ["data=phosphorus_mini"],
}
SMALL = {"torchmd_net": ["model.hyperparameters={width: 64, layers: 3}"]}


def prepared(folder: Path, system: str) -> Path:
    """Data, EAM and perturbed structures of a system."""
    run = RunFolder(folder / system)
    config = read_settings(RunConfig, None, SYSTEMS[system])
    splits = preparation.prepare_data(run, config.data)
    eam = preparation.prepare_eam(run, splits, config)
    preparation.prepare_pretraining(run, splits, eam, config)
    return run.path


def trial(folder: Path, name: str) -> dict[str, object]:
    """Train what a trial names."""
    system, model, strategy, *rest = name.split("/")
    changes = rest[0].split(",") if rest else []
    base = prepared(folder, system)
    target = folder / "trials" / name.replace("/", "_")
    start = STRATEGIES[strategy].start
    if not target.exists():
        half = target.with_name(target.name + ".part")
        shutil.rmtree(half, ignore_errors=True)
        for part in ("data", "eam", "pretraining"):
            shutil.copytree(base / part, half / part)
        if start is not None:
            of_start = ",".join(change for change in changes if change.startswith("pretraining."))
            source = "/".join([system, model, start, *([of_start] if of_start else [])])
            shutil.copytree(folder / "trials" / source.replace("/", "_") / "models" / start, half / "models" / start)
        half.rename(target)
    overrides = [*SYSTEMS[system], f"model.name={model}", *SMALL.get(model, ()), *changes]
    config = resolved(read_settings(RunConfig, None, overrides))
    begun = time.perf_counter()
    train_strategy(RunFolder(target), config, strategy)
    seconds = time.perf_counter() - begun
    history = read_checkpoint(target / "models" / strategy / "last.pt")["training"]["history"]
    best = min(history, key=lambda row: row.get("val_forces_mae", float("inf")))
    found = {key: best[key] for key in ("epoch", "val_energy_mae", "val_forces_mae")}
    return {"trial": name, **found, "last_forces_mae": history[-1]["val_forces_mae"], "seconds": seconds}


def main(folder: Path, names: list[str]) -> None:
    """Make the trials that are not there yet."""
    keep_memory()
    path = folder / "trials.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        done = [json.loads(line)["trial"] for line in path.read_text().splitlines()] if path.exists() else []
        if name not in done:
            found = trial(folder, name)
            with path.open("a") as stream:
                stream.write(json.dumps(found) + "\n")
            print(found, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
