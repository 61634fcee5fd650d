"""``datasets list|info|get``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pretrain_mlip.cli.common import OUTPUT, Data, Keys, read_data

app = typer.Typer(
    no_args_is_help=True, help="Embedded and public data sets; what a file holds and whether it is sound."
)


@app.command("list")
def list_command() -> None:
    """The data sets that are known by name.

    Example: pretrain-mlip datasets list
    """
    from pretrain_mlip.console import print_table, table
    from pretrain_mlip.structures.datasets import DATASETS

    rows = [
        [entry.name, "embedded" if entry.embedded else "download", entry.licence, entry.description]
        for entry in DATASETS.values()
    ]
    print_table(table("data sets", ["name", "where", "licence", "what"], rows))


@app.command()
def info(data: Data, keys: Keys = None) -> None:
    """What a data set or a file holds, and everything about it that looks wrong.

    Example: pretrain-mlip datasets info my.extxyz
    """
    from pretrain_mlip.console import print_table, table
    from pretrain_mlip.structures.checks import check_structures, findings_table, summarise
    from pretrain_mlip.structures.datasets import DATASETS

    if data in DATASETS:
        entry = DATASETS[data]
        typer.echo(f"{entry.name}: {entry.description}\n{entry.provenance}\nLicence: {entry.licence}. {entry.citation}")
    frames = read_data(data, require=(), keys=keys)
    rows = [
        [name, ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)]
        for name, value in summarise(frames).items()
    ]
    print_table(table(data, ["what", "value"], rows))
    print_table(findings_table(check_structures(frames)))


@app.command()
def get(
    name: Annotated[str, typer.Argument(metavar="NAME", help="See 'datasets list'.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder to put it in.", rich_help_panel=OUTPUT)
    ] = Path(),
) -> None:
    """Write a data set as extended XYZ; public ones are downloaded first.

    Example: pretrain-mlip datasets get silica_mini
    """
    from pretrain_mlip.structures.datasets import get_dataset

    typer.echo(get_dataset(name, output))
