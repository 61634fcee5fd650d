"""``rdf``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pretrain_mlip.cli.common import OUTPUT, read_data


def rdf(
    trajectories: Annotated[list[str], typer.Argument(metavar="TRAJ...", help="Trajectories or data sets.")],
    reference: Annotated[str | None, typer.Option(help="Structures to compare with, from DFT say.")] = None,
    pairs: Annotated[str | None, typer.Option(help="Pairs of elements, such as Si-O,O-O; all where not given.")] = None,
    r_max: Annotated[float, typer.Option(help="Largest distance, Å.")] = 6.0,
    bins: Annotated[int, typer.Option(help="Number of bins.")] = 120,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for rdf.json and rdf.png.", rich_help_panel=OUTPUT)
    ] = Path("rdf"),
) -> None:
    """Radial distribution functions, total and of every pair of elements.

    Example: pretrain-mlip rdf md.extxyz --reference dft.extxyz --pairs Si-O,O-O
    """
    from pretrain_mlip.console import print_table, table
    from pretrain_mlip.dynamics.rdf import radial_distribution, rdf_mae
    from pretrain_mlip.files import write_json
    from pretrain_mlip.report import curves
    from pretrain_mlip.report.style import save

    wanted = [pair.strip() for pair in pairs.split(",")] if pairs else None
    functions = {name: radial_distribution(read_data(name, require=()), r_max, bins, wanted) for name in trajectories}
    known = radial_distribution(read_data(reference, require=()), r_max, bins, wanted) if reference else None
    content = {
        "reference": known.to_dict() if known else None,
        "models": {name: found.to_dict() for name, found in functions.items()},
    }
    write_json(output / "rdf.json", content)
    save(curves.rdf(content), output / "rdf.png")
    if known is not None:
        errors = {name: rdf_mae(found, known) for name, found in functions.items()}
        columns = sorted({pair for row in errors.values() for pair in row})
        print_table(
            table(
                f"mean |g - g_reference| up to {r_max:g} Å",
                ["trajectory", *columns],
                [[name, *(row[c] for c in columns)] for name, row in errors.items()],
            )
        )
    typer.echo(f"written: {output / 'rdf.json'}, {output / 'rdf.png'}")
