"""``export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pretrain_mlip.cli.common import OUTPUT, Potential


def export(
    potential: Potential,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.", rich_help_panel=OUTPUT)],
    file_format: Annotated[
        str, typer.Option("--format", help="setfl: tables for LAMMPS pair_style eam/alloy or eam/fs.")
    ] = "setfl",
    include_e0: Annotated[
        bool, typer.Option(help="Add the energies of isolated atoms to the embedding functions.")
    ] = False,
    points_r: Annotated[
        int | None, typer.Option(help="Table size in the distance; where not given, a node every 0.002 Å or closer.")
    ] = None,
    points_rho: Annotated[
        int | None, typer.Option(help="Table size in the density; where not given, a step of 0.0005 or smaller.")
    ] = None,
) -> None:
    """Write a potential in a form that other programs read.

    Example: pretrain-mlip export runs/silica_mini/eam/eam.json --format setfl -o silica.eam.alloy
    """
    from pretrain_mlip.errors import InputError
    from pretrain_mlip.potentials.checkpoint import load_potential
    from pretrain_mlip.potentials.eam.embedded_atom import EmbeddedAtom
    from pretrain_mlip.potentials.eam.setfl import write_setfl

    if file_format != "setfl":
        raise InputError(f"format '{file_format}': expected setfl")
    model = load_potential(potential)
    if not isinstance(model, EmbeddedAtom):
        raise InputError(f"{potential}: only an EAM (eam.json, setfl tables) can be written as setfl tables")
    write_setfl(model, output, points_r=points_r, points_rho=points_rho, include_e0=include_e0)
    style = "eam/fs" if model.form == "fs" else "eam/alloy"
    typer.echo(f"{output}\nLAMMPS: units metal; pair_style {style}; pair_coeff * * {output} {' '.join(model.elements)}")
