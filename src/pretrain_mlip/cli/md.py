"""``md``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from ase import Atoms

    from pretrain_mlip.dynamics.md import MDRun, MDSettings

ENGINE = "Engine"


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
    engine: Annotated[str, typer.Option(help="ase or lammps.", rich_help_panel=ENGINE)] = "ase",
    ranks: Annotated[int, typer.Option(min=1, help="Processes of LAMMPS.", rich_help_panel=ENGINE)] = 1,
    lmp: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="The LAMMPS program; that of this environment by default.", rich_help_panel=ENGINE
        ),
    ] = None,
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
    if engine == "lammps":
        if compile_networks or memory_limit is not None or products != "full" or device not in ("auto", "cpu"):
            raise InputError(
                "--compile, --memory-limit, --products and --device are of --engine ase; for LAMMPS export the "
                "potential as wanted, such as --format pt2"
            )
        result = _run_lammps(
            potential, frames[index], settings, lmp=lmp, ranks=ranks, dtype=dtype, seed=seed, output=output
        )
    elif engine == "ase":
        if ranks != 1 or lmp is not None:
            raise InputError("--ranks and --lmp are of --engine lammps")
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
    else:
        raise InputError(f"engine '{engine}': expected ase or lammps")
    if result.failure is not None:
        kept = f"; trajectory: {output}" if result.frames else "; no frame was good, so no trajectory is written"
        typer.echo(f"failed after {result.time_ps:.3f} ps: {result.failure.message()}{kept}")
        raise typer.Exit(1)
    typer.echo(f"completed {result.time_ps:.3f} ps; trajectory: {output}")


def _run_lammps(
    potential: Path,
    atoms: Atoms,
    settings: MDSettings,
    *,
    lmp: Path | None,
    ranks: int,
    dtype: str | None,
    seed: int,
    output: Path,
) -> MDRun:
    from pretrain_mlip.console import stderr
    from pretrain_mlip.deploy.lammps.runs import find_program
    from pretrain_mlip.dynamics.md_lammps import run_md_lammps

    with stderr().status(f"LAMMPS runs, {settings.steps} steps"):
        return run_md_lammps(
            atoms,
            potential,
            settings,
            program=find_program(lmp),
            ranks=ranks,
            dtype=dtype,
            seed=seed,
            trajectory=output,
        )
