"""``export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pretrain_mlip.cli.common import OUTPUT, Potential

SETFL = "setfl tables"
FORMATS = "setfl, torchscript, pt2"


def export(
    potential: Potential,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.", rich_help_panel=OUTPUT)],
    file_format: Annotated[
        str,
        typer.Option(
            "--format",
            help="setfl (an EAM, for LAMMPS pair_style eam/alloy or eam/fs); torchscript (.ts.pt) or pt2 (compiled), "
            "for programs that embed torch.",
        ),
    ] = "setfl",
    dtype: Annotated[
        str | None, typer.Option(help="Precision of networks: float32 or float64; the checkpoint's where not given.")
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
    from pretrain_mlip.errors import InputError
    from pretrain_mlip.potentials.checkpoint import load_potential

    if file_format == "setfl":
        if dtype is not None:
            raise InputError("--dtype is for networks; setfl tables have no precision to choose")
        _write_setfl(potential, output, points_r=points_r, points_rho=points_rho, include_e0=include_e0)
        return
    if file_format not in ("torchscript", "pt2"):
        raise InputError(f"format '{file_format}': expected one of {FORMATS}")
    if include_e0 or points_r is not None or points_rho is not None:
        raise InputError("--include-e0, --points-r and --points-rho belong to --format setfl")
    from pretrain_mlip.deploy.exports import write_export

    info = write_export(load_potential(potential), output, file_format, dtype=dtype, threads=threads)
    typer.echo(
        f"{output}\n{info.dtype}, types in the order {info.elements}, cutoff {float(info.cutoff):g} Å, {info.units}"
    )


def _write_setfl(path: Path, output: Path, *, points_r: int | None, points_rho: int | None, include_e0: bool) -> None:
    from pretrain_mlip.errors import InputError
    from pretrain_mlip.potentials.checkpoint import load_potential
    from pretrain_mlip.potentials.eam.embedded_atom import EmbeddedAtom
    from pretrain_mlip.potentials.eam.setfl import write_setfl

    model = load_potential(path)
    if not isinstance(model, EmbeddedAtom):
        raise InputError(f"{path}: only an EAM (eam.json, setfl tables) can be written as setfl tables")
    write_setfl(model, output, points_r=points_r, points_rho=points_rho, include_e0=include_e0)
    style = "eam/fs" if model.form == "fs" else "eam/alloy"
    typer.echo(f"{output}\nLAMMPS: units metal; pair_style {style}; pair_coeff * * {output} {' '.join(model.elements)}")
