"""``md``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pretrain_mlip.cli.common import (
    OUTPUT,
    Calculator,
    Compile,
    Config,
    Device,
    Dtype,
    Elements,
    Index,
    MemoryLimit,
    Products,
    find_source,
    places_and_overrides,
    read_data,
    refuse_options,
)

if TYPE_CHECKING:
    from ase import Atoms

    from pretrain_mlip.dynamics.failure import FailureSettings
    from pretrain_mlip.dynamics.protocols import MDSettings
    from pretrain_mlip.dynamics.watch import MDRun

ENGINE = "Engine"


def md(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="[POTENTIAL] STRUCTURE [KEY=VALUE]...",
            help="A potential, or --calculator; a structure (a file, or the name of an embedded data set); settings, "
            "such as ensemble=npt or failure.max_force=500.",
            show_default=False,
        ),
    ],
    calculator: Calculator = None,
    elements: Elements = None,
    index: Index = 0,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Trajectory to write (extended XYZ).", rich_help_panel=OUTPUT)
    ] = Path("md.extxyz"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where the run of this trajectory was interrupted, if it was.")
    ] = False,
    reference: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Structures whose radial distribution failure.rdf_deviation compares with."),
    ] = None,
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
    """MD of any ensemble, with ramps, that stops at the first failure. Exit status 1 when it failed.

    Example: pretrain-mlip md model.pt structure.cif temperature=300 end_temperature=3000 duration_ps=10
    Example: pretrain-mlip md model.pt structure.cif ensemble=npt pressure_gpa=0 end_pressure_gpa=50
    Example: pretrain-mlip md --calculator ase.calculators.emt:EMT copper.cif ensemble=nve
    """
    from pretrain_mlip.errors import InputError
    from pretrain_mlip.structures.io import check_extxyz_name

    check_extxyz_name(output)
    places, overrides = places_and_overrides(arguments, calculator, "POTENTIAL", "STRUCTURE")
    potential = Path(places[0]) if calculator is None else None
    settings, failure = _settings(config, overrides)
    atoms = _structure(places[-1], index)
    reduced = {"--compile": compile_networks, "--memory-limit": memory_limit, "--products": products != "full"}
    if engine == "lammps":
        elsewhere = {"--calculator": calculator, "--resume": resume, "--reference": reference, "--elements": elements}
        refuse_options(reduced | elsewhere | {"--device": device not in ("auto", "cpu")}, "are of --engine ase")
        run = (Path(places[0]), atoms, settings, failure)
        result = _run_lammps(*run, lmp=lmp, ranks=ranks, dtype=dtype, seed=seed, output=output)
    elif engine == "ase":
        refuse_options({"--ranks": ranks != 1, "--lmp": lmp}, "are of --engine lammps")
        if calculator is not None:
            refuse_options(
                reduced | {"--dtype": dtype, "--device": device != "auto"}, "are of potentials of this package"
            )
        of_networks = {"compile": compile_networks, "memory_limit": memory_limit, "products": products}
        source = find_source(potential, calculator, elements, device=device, dtype=dtype, **of_networks)
        source.check([atoms], places[-1])
        run = (atoms, source.make(), settings, failure)
        result = _run_ase(*run, seed=seed, output=output, resume=resume, reference=reference)
    else:
        raise InputError(f"engine '{engine}': expected ase or lammps")
    _tell(result, output)


def _settings(config: Path | None, overrides: list[str]) -> tuple[MDSettings, FailureSettings]:
    from pretrain_mlip.dynamics.protocols import MDSettings, WatchedRun
    from pretrain_mlip.settings import read_settings

    given = read_settings(WatchedRun, config, overrides)
    return MDSettings(**given.model_dump(exclude={"failure"})), given.failure


def _structure(place: str, index: int) -> Atoms:
    from pretrain_mlip.errors import InputError

    frames = read_data(place, require=())
    if not -len(frames) <= index < len(frames):
        raise InputError(f"{place}: there is no structure {index}; the file has {len(frames)}")
    return frames[index]


def _run_ase(
    atoms: Atoms,
    calculator: Any,
    settings: MDSettings,
    failure: FailureSettings,
    *,
    seed: int,
    output: Path,
    resume: bool,
    reference: str | None,
) -> MDRun:
    from pretrain_mlip.dynamics.md import run_md
    from pretrain_mlip.dynamics.rdf import radial_distribution
    from pretrain_mlip.errors import InputError

    if reference is not None and failure.rdf_deviation is None:
        raise InputError("--reference: is what failure.rdf_deviation compares with, which is not set")
    known = None if reference is None else radial_distribution(read_data(reference, require=()))
    return run_md(
        *(atoms, calculator, settings),
        failure=failure,
        seed=seed,
        trajectory=output,
        resume=resume,
        reference=known,
        progress=True,
    )


def _tell(result: MDRun, output: Path) -> None:
    if result.failure is None:
        typer.echo(f"completed {result.time_ps:.3f} ps; trajectory: {output}")
        return
    kept = f"; good frames: {output}" if result.frames else "; no frame was good, so no trajectory is written"
    if result.failed_frame is not None:
        kept += f"; the one that failed: {output.with_name(output.stem)}.failed.extxyz"
    typer.echo(f"failed after {result.time_ps:.3f} ps: {result.failure.message()}{kept}")
    raise typer.Exit(1)


def _run_lammps(
    potential: Path,
    atoms: Atoms,
    settings: MDSettings,
    failure: FailureSettings,
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

    with stderr().status(f"LAMMPS runs, {settings.of(atoms).steps} steps"):
        return run_md_lammps(
            atoms,
            potential,
            settings,
            program=find_program(lmp),
            ranks=ranks,
            dtype=dtype,
            failure=failure,
            seed=seed,
            trajectory=output,
        )
