"""``evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pretrain_mlip.cli.common import (
    OUTPUT,
    READABLE,
    Calculator,
    Device,
    Dtype,
    Elements,
    Keys,
    find_source,
    places_and_overrides,
    read_data,
    refuse_options,
)

if TYPE_CHECKING:
    from ase import Atoms

    from pretrain_mlip.calculators.sources import Source
    from pretrain_mlip.structures.labels import Labels


def evaluate(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="[POTENTIAL] DATA",
            help=f"{READABLE}; or --calculator. Then labelled structures: a file, or an embedded data set by name.",
            show_default=False,
        ),
    ],
    calculator: Calculator = None,
    elements: Elements = None,
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
    """Errors of a potential, or of any ASE calculator, against labelled structures: meV/atom, meV/Å, GPa.

    Example: pretrain-mlip evaluate runs/silica_mini/models/replay/best.pt silica_mini --split test
    Example: pretrain-mlip evaluate --calculator ase.calculators.emt:EMT copper.extxyz
    """
    from pretrain_mlip.console import print_table, table
    from pretrain_mlip.errors import InputError
    from pretrain_mlip.validation.errors import error_table, parity, rows_for_display

    places, strange = places_and_overrides(arguments, calculator, "POTENTIAL", "DATA")
    if strange:
        raise InputError(f"{strange[0]}: this command has no such settings; see --help")
    potential, data = (Path(places[0]) if calculator is None else None), places[-1]
    source = find_source(potential, calculator, elements, device=device, dtype=dtype)
    if calculator is not None:
        refuse_options({"--dtype": dtype, "--device": device != "auto"}, "are of potentials of this package")
    frames = [atoms for atoms in read_data(data, keys=keys) if split is None or atoms.info.get("split") == split]
    if not frames:
        raise InputError(f"{data}: no structure with split={split}")
    if by != "config_type" and not any(by in atoms.info for atoms in frames):
        raise InputError(f"{data}: no structure has the info key '{by}' to list errors by")
    source.check(frames, data)
    predicted = _predictions(potential, source, frames, device, dtype)
    errors = error_table(frames, predicted, by)
    columns, rows = rows_for_display(errors)
    print_table(table(f"{potential or calculator} on {data}", columns, rows))
    if output is not None:
        from pretrain_mlip.files import write_json
        from pretrain_mlip.report import figures
        from pretrain_mlip.report.style import save

        write_json(output / "errors.json", errors)
        save(
            figures.parity({source.name: parity(frames, predicted)}, "forces"),
            output / "parity.png",
        )
        typer.echo(f"written: {output / 'errors.json'}, {output / 'parity.png'}")


def _predictions(
    potential: Path | None, source: Source, frames: list[Atoms], device: str, dtype: str | None
) -> list[Labels]:
    """In batches where the potential is one of this package."""
    if potential is None:
        from pretrain_mlip.validation.errors import predict_with

        return predict_with(source.make(), frames)
    from pretrain_mlip.calculators.batched import predict
    from pretrain_mlip.potentials.checkpoint import load_potential

    return predict(load_potential(potential), frames, device=device, dtype=dtype)
