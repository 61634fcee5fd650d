"""``export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pretrain_mlip.cli.common import OUTPUT, Potential

if TYPE_CHECKING:
    from ase import Atoms

    from pretrain_mlip.potentials.base import Potential as Model

SETFL = "setfl tables"
FORMATS = "setfl, torchscript, pt2, mliap"


def export(
    potential: Potential,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.", rich_help_panel=OUTPUT)],
    file_format: Annotated[
        str,
        typer.Option(
            "--format",
            help="setfl (an EAM, for LAMMPS pair_style eam/alloy or eam/fs); torchscript (.ts.pt) or pt2 (compiled), "
            "for pair_style pretrain_mlip and programs that embed torch; mliap, for pair_style mliap unified.",
        ),
    ] = "setfl",
    dtype: Annotated[
        str | None, typer.Option(help="Precision of networks: float32 or float64; the checkpoint's where not given.")
    ] = None,
    with_deck: Annotated[
        str | None,
        typer.Option(
            metavar="STRUCTURE",
            help="Write an input file for LAMMPS and a data file of this structure beside it, ready to run.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads that a .pt2 file will run on, in each MPI process.")] = 1,
    include_e0: Annotated[
        bool,
        typer.Option(help="Add the energies of isolated atoms to the embedding functions.", rich_help_panel=SETFL),
    ] = False,
    points_r: Annotated[
        int | None,
        typer.Option(
            help="Table size in the distance; where not given, a node every 0.002 Å or closer.", rich_help_panel=SETFL
        ),
    ] = None,
    points_rho: Annotated[
        int | None,
        typer.Option(
            help="Table size in the density; where not given, a step of 0.0005 or smaller.", rich_help_panel=SETFL
        ),
    ] = None,
) -> None:
    """Write a potential in a form that other programs read.

    Example: pretrain-mlip export runs/silica_mini/models/finetune/best.pt --format pt2 -o silica.pt2
    """
    from pretrain_mlip.deploy.lammps.decks import files_of_deck, types_of, write_deck
    from pretrain_mlip.potentials.checkpoint import load_potential

    of_tables = include_e0 or points_r is not None or points_rho is not None
    _check_options(file_format, of_tables=of_tables, threads=threads, dtype=dtype)
    atoms, model, halo = _first(with_deck), load_potential(potential), 0.0
    if atoms is not None:
        types_of(atoms, model.elements)  # refused before anything is compiled
        files_of_deck(output)
    if file_format == "setfl":
        _write_setfl(model, potential, output, points_r=points_r, points_rho=points_rho, include_e0=include_e0)
    elif file_format == "mliap":
        halo = _write_mliap(model, output, dtype)
    else:
        from pretrain_mlip.deploy.exports import write_export

        info = write_export(model, output, file_format, dtype=dtype, threads=threads)
        typer.echo(
            f"{output}\n{info.dtype}, types in the order {info.elements}, cutoff {float(info.cutoff):g} Å, eV, Å"
        )
    if atoms is not None:
        deck = write_deck(output, atoms, model.elements, cutoff=model.cutoff, halo=halo)
        typer.echo(f"lmp -in {deck}" if deck.parent == Path() else f"cd {deck.parent} && lmp -in {deck.name}")


def _check_options(file_format: str, *, of_tables: bool, threads: int, dtype: str | None) -> None:
    from pretrain_mlip.errors import InputError

    if file_format not in FORMATS.split(", "):
        raise InputError(f"format '{file_format}': expected one of {FORMATS}")
    if file_format != "setfl" and of_tables:
        raise InputError("--include-e0, --points-r and --points-rho belong to --format setfl")
    if file_format != "pt2" and threads != 1:
        raise InputError("--threads is for format pt2; other code runs on as many as the program gives it")
    if file_format == "setfl" and dtype is not None:
        raise InputError("--dtype is for code; setfl tables have no precision")


def _first(source: str | None) -> Atoms | None:
    if source is None:
        return None
    from pretrain_mlip.cli.common import read_data

    return read_data(source, require=())[0]


def _write_mliap(model: Model, output: Path, dtype: str | None) -> float:
    from pretrain_mlip.deploy.lammps.mliap import write_mliap

    made = write_mliap(output, model, dtype=dtype)
    symbols = " ".join(made.element_types)
    typer.echo(
        f"{output}\nLAMMPS: units metal; comm_modify cutoff {made.halo:g}; pair_style mliap unified {output} 1; "
        f"pair_coeff * * {symbols}"
    )
    return made.halo


def _write_setfl(
    model: Model, path: Path, output: Path, *, points_r: int | None, points_rho: int | None, include_e0: bool
) -> None:
    from pretrain_mlip.errors import InputError
    from pretrain_mlip.potentials.eam.embedded_atom import EmbeddedAtom
    from pretrain_mlip.potentials.eam.setfl import write_setfl

    if not isinstance(model, EmbeddedAtom):
        raise InputError(f"{path}: only an EAM (eam.json, setfl tables) can be written as setfl tables")
    write_setfl(model, output, points_r=points_r, points_rho=points_rho, include_e0=include_e0)
    style = "eam/fs" if model.form == "fs" else "eam/alloy"
    typer.echo(f"{output}\nLAMMPS: units metal; pair_style {style}; pair_coeff * * {output} {' '.join(model.elements)}")
