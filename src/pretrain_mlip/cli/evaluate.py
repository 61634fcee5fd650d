"""``evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pretrain_mlip.cli.common import OUTPUT, Data, Device, Dtype, Keys, Potential, read_data


def evaluate(
    potential: Potential,
    data: Data,
    split: Annotated[str | None, typer.Option(help="Only structures of this split (train, val, test).")] = None,
    by: Annotated[str, typer.Option(help="Info key whose values are the rows of the table.")] = "config_type",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for errors.json and parity.png.", rich_help_panel=OUTPUT),
    ] = None,
    device: Device = "auto",
    dtype: Dtype = None,
    keys: Keys = None,
) -> None:
    """Errors of a potential against labelled structures: meV/atom, meV/Å, GPa.

    Example: pretrain-mlip evaluate runs/silica_mini/models/delta/best.pt silica_mini --split test
    """
    from pretrain_mlip.calculators.batched import predict
    from pretrain_mlip.console import print_table, table
    from pretrain_mlip.errors import InputError
    from pretrain_mlip.potentials.checkpoint import load_potential
    from pretrain_mlip.validation.errors import error_table, parity, rows_for_display

    model = load_potential(potential)
    frames = [atoms for atoms in read_data(data, keys=keys) if split is None or atoms.info.get("split") == split]
    if not frames:
        raise InputError(f"{data}: no structure with split={split}")
    if by != "config_type" and not any(by in atoms.info for atoms in frames):
        raise InputError(f"{data}: no structure has the info key '{by}' to list errors by")
    predicted = predict(model, frames, device=device, dtype=dtype)
    errors = error_table(frames, predicted, by)
    columns, rows = rows_for_display(errors)
    print_table(table(f"{potential} on {data}", columns, rows))
    if output is not None:
        from pretrain_mlip.files import write_json
        from pretrain_mlip.report import figures
        from pretrain_mlip.report.style import save

        write_json(output / "errors.json", errors)
        save(
            figures.parity({potential.parent.name or potential.stem: parity(frames, predicted)}, "forces"),
            output / "parity.png",
        )
        typer.echo(f"written: {output / 'errors.json'}, {output / 'parity.png'}")
