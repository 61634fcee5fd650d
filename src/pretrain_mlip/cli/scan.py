"""``scan``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pretrain_mlip.cli.common import OUTPUT, Device, Potential, load_calculator


def scan(
    potential: Potential,
    r_min: Annotated[float, typer.Option(help="Shortest distance, Å.")] = 0.4,
    r_max: Annotated[float, typer.Option(help="Longest distance, Å.")] = 8.0,
    points: Annotated[int, typer.Option(min=2, help="Number of distances.")] = 200,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for scan.json and scan.png.", rich_help_panel=OUTPUT)
    ] = Path("scan"),
    device: Device = "auto",
) -> None:
    """Energy and force of isolated dimers of every pair of elements: is there a wall?

    Example: pretrain-mlip scan runs/silica_mini/models/vanilla/best.pt
    """
    from pretrain_mlip.console import print_table, table
    from pretrain_mlip.files import write_json
    from pretrain_mlip.report.curves import dimers
    from pretrain_mlip.report.style import save
    from pretrain_mlip.validation.dimers import dimer_metrics, scan_dimers

    calculator = load_calculator(potential, device, "float64")
    curves = scan_dimers(calculator, list(calculator.potential.elements), r_min, r_max, points)
    metrics = dimer_metrics(curves)
    write_json(output / "scan.json", {"curves": curves, "metrics": metrics})
    save(dimers({potential.parent.name or potential.stem: curves}), output / "scan.png")
    columns = list(next(iter(metrics.values())))
    print_table(
        table(
            f"dimers of {potential}",
            ["pair", *columns],
            [[pair, *("-" if row[c] is None else row[c] for c in columns)] for pair, row in metrics.items()],
        )
    )
    typer.echo(f"written: {output / 'scan.json'}, {output / 'scan.png'}")
