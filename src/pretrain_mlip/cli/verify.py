"""``verify``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pretrain_mlip.cli.common import OUTPUT, AnyPotential, Calculator, Device, Elements, find_source, read_data

if TYPE_CHECKING:
    from rich.table import Table

COLOURS = {"A": "green", "B": "green", "C": "yellow", "D": "yellow", "P": "green", "F": "bold red"}


def verify(
    potential: AnyPotential = None,
    calculator: Calculator = None,
    elements: Elements = None,
    structure: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Check derivatives on its first structure too, and a crystal's extensivity."),
    ] = None,
    check: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Make only this check; may be repeated.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="JSON file to write.", rich_help_panel=OUTPUT)] = Path(
        "verification.json"
    ),
    dtype: Annotated[
        str, typer.Option(help="float64 or float32: what networks compute in, and --calculator is precise to.")
    ] = "float64",
    device: Device = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the structures.")] = 0,
) -> None:
    """Check the code behind a potential or any ASE calculator. Exit status 1 when a mandatory check fails.

    The names are those of OpenKIM's verification checks. Half a minute for an EAM, minutes for a network.

    Example: pretrain-mlip verify runs/silica_mini/models/finetune/best.pt
    Example: pretrain-mlip verify --calculator ase.calculators.emt:EMT --elements Cu,Au
    """
    from pretrain_mlip.console import print_table
    from pretrain_mlip.files import write_json
    from pretrain_mlip.validation.verification.subject import Subject
    from pretrain_mlip.validation.verification.verify import passed
    from pretrain_mlip.validation.verification.verify import verify as make_checks

    source = find_source(potential, calculator, elements, needs_elements=True, device=device, dtype=dtype)
    given = read_data(structure, require=())[0] if structure is not None else None
    subject = Subject(source.make, source.elements, dtype=dtype, seed=seed, structure=given)
    results = make_checks(subject, check)
    name = str(potential or calculator)
    write_json(
        output,
        {"potential": name, "elements": list(source.elements), "dtype": dtype, "seed": seed, "checks": results},
    )
    print_table(_card(name, results))
    typer.echo(f"written: {output}")
    if not passed(results):
        raise typer.Exit(1)


def _card(name: str, results: dict[str, dict[str, Any]]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    card = Table(title=f"verification of {escape(name)}", title_justify="left")
    for column in ("check", "", "grade", "detail"):
        card.add_column(column, no_wrap=column == "check", justify="center" if column == "grade" else "left")
    for check, row in results.items():
        colour = COLOURS.get(row["grade"], "dim")
        error = "" if row["error"] is None or row["grade"] not in "ABCD" else f"{row['error']:.1e} "
        card.add_row(check, row["category"], f"[{colour}]{row['grade']}[/]", escape(error + row["detail"]))
    return card
