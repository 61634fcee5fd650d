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
        Path | None, typer.Option(help="Teacher (eam.json, setfl tables): caps forces and energies, and labels.")
    ] = None,
    config: Config = None,
) -> None:
    """Make strongly perturbed copies of structures, in two steps.

    Example: pretrain-mlip perturb silica.extxyz -o perturbed.extxyz --potential eam/eam.json rounds=4
    """
    from pretrain_mlip.console import print_table
    from pretrain_mlip.pipeline.preparation import coverage_table, teacher_of
    from pretrain_mlip.potentials.checkpoint import load_potential
    from pretrain_mlip.potentials.eam.settings import EAMSettings
    from pretrain_mlip.settings import read_settings
    from pretrain_mlip.structures.io import write_structures
    from pretrain_mlip.structures.perturbation import PerturbationSettings, perturb

    settings = read_settings(PerturbationSettings, config, overrides or [])
    frames = read_data(data, require=())
    if potential is None:
        cutoff = EAMSettings().cutoff
        made = perturb(frames, settings, cutoff=cutoff)
    else:
        loaded = load_potential(potential)
        cutoff = loaded.cutoff
        made = perturb(frames, settings, teacher=teacher_of(loaded), cutoff=cutoff)
    write_structures(output, made.frames)
    print_table(coverage_table(frames, made.frames, settings.floor_distance, cutoff))
    typer.echo(
        f"{output}: {len(made.frames)} structures; "
        + ", ".join(f"{name} {count}" for name, count in made.counts.items())
    )


def label(
    data: Data,
    potential: Annotated[Path, typer.Option(help="Any potential of ours: eam.json, setfl tables or a checkpoint.")],
    output: OutputFile,
    workers: Annotated[int, typer.Option(min=1, help="Processes on this machine, which Dask starts.")] = 1,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a Dask scheduler, tcp://host:port, whose workers are taken instead.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Label structures with energies, forces and stress of a potential.

    Example: pretrain-mlip label perturbed.extxyz --potential eam/eam.json -o labelled.extxyz --workers 8
    """
    from pretrain_mlip.calculators.batched import label_structures
    from pretrain_mlip.potentials.checkpoint import load_potential
    from pretrain_mlip.structures.io import write_structures

    frames = label_structures(
        load_potential(potential), read_data(data, require=()), device=device, workers=workers, scheduler=scheduler
    )
    write_structures(output, frames)
    typer.echo(f"{output}: {len(frames)} structures labelled by {potential}")
