"""``perturb`` and ``label``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pretrain_mlip.cli.common import OUTPUT, Config, Data, Device, Overrides, read_data

OutputFile = Annotated[Path, typer.Option("--output", "-o", help="Extended XYZ file to write.", rich_help_panel=OUTPUT)]


def perturb(
    data: Data,
    output: OutputFile,
    overrides: Overrides = None,
    potential: Annotated[
        Path | None, typer.Option(help="Teacher (eam.json): caps forces and energies, and labels.")
    ] = None,
    config: Config = None,
) -> None:
    """Make strongly perturbed copies of structures, in two steps.

    Example: pretrain-mlip perturb silica.extxyz -o perturbed.extxyz --potential eam/eam.json rounds=4
    """
    from pretrain_mlip.pipeline.preparation import teacher_of
    from pretrain_mlip.potentials.checkpoint import load_potential
    from pretrain_mlip.settings import read_settings
    from pretrain_mlip.structures.io import write_structures
    from pretrain_mlip.structures.perturbation import PerturbationSettings, perturb

    settings = read_settings(PerturbationSettings, config, overrides or [])
    teacher = teacher_of(load_potential(potential)) if potential is not None else None
    made = perturb(read_data(data, require=()), settings, teacher=teacher)
    write_structures(output, made.frames)
    typer.echo(
        f"{output}: {len(made.frames)} structures; "
        + ", ".join(f"{name} {count}" for name, count in made.counts.items())
    )


def label(
    data: Data,
    potential: Annotated[Path, typer.Option(help="Any potential of ours: eam.json or a checkpoint.")],
    output: OutputFile,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes, which Dask starts; more than 1 needs the extra 'distributed'.")
    ] = 1,
    device: Device = "auto",
) -> None:
    """Label structures with energies, forces and stress of a potential.

    Example: pretrain-mlip label perturbed.extxyz --potential eam/eam.json -o labelled.extxyz --workers 8
    """
    from pretrain_mlip.calculators.batched import label_structures
    from pretrain_mlip.potentials.checkpoint import load_potential
    from pretrain_mlip.structures.io import write_structures

    frames = label_structures(load_potential(potential), read_data(data, require=()), device=device, workers=workers)
    write_structures(output, frames)
    typer.echo(f"{output}: {len(frames)} structures labelled by {potential}")
