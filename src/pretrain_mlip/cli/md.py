"""``md``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pretrain_mlip.cli.common import (
    OUTPUT,
    Compile,
    Config,
    Data,
    Device,
    Dtype,
    MemoryLimit,
    Overrides,
    Potential,
    Products,
    load_calculator,
    read_data,
)


def md(
    potential: Potential,
    structure: Data,
    overrides: Overrides = None,
    index: Annotated[int, typer.Option(help="Which structure of the file.")] = 0,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Trajectory to write (extended XYZ).", rich_help_panel=OUTPUT)
    ] = Path("md.extxyz"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the starting velocities and of the thermostat.")] = 0,
    config: Config = None,
    device: Device = "auto",
    dtype: Dtype = None,
    compile_networks: Compile = False,
    memory_limit: MemoryLimit = None,
    products: Products = "full",
) -> None:
    """Langevin MD with a temperature ramp that stops at the first failure. Exit status 1 when it failed.

    Example: pretrain-mlip md model.pt structure.cif temperature=300 end_temperature=3000 duration_ps=10
    """
    from pretrain_mlip.dynamics.failure import FailureSettings
    from pretrain_mlip.dynamics.md import MDSettings, run_md
    from pretrain_mlip.errors import InputError
    from pretrain_mlip.settings import read_settings
    from pretrain_mlip.structures.io import check_extxyz_name

    check_extxyz_name(output)
    settings = read_settings(MDSettings, config, overrides or [])
    frames = read_data(structure, require=())
    if not -len(frames) <= index < len(frames):
        raise InputError(f"{structure}: there is no structure {index}; the file has {len(frames)}")
    calculator = load_calculator(
        potential, device, dtype, compile=compile_networks, memory_limit=memory_limit, products=products
    )
    result = run_md(
        frames[index],
        calculator,
        settings,
        failure=FailureSettings(),
        seed=seed,
        trajectory=output,
        progress=True,
    )
    if result.failure is not None:
        kept = f"; trajectory: {output}" if result.frames else "; no frame was good, so no trajectory is written"
        typer.echo(f"failed after {result.time_ps:.3f} ps: {result.failure.message()}{kept}")
        raise typer.Exit(1)
    typer.echo(f"completed {result.time_ps:.3f} ps; trajectory: {output}")
