"""``scan``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pretrain_mlip.cli.common import OUTPUT, AnyPotentials, Calculator, Device, Elements, find_source, read_data

if TYPE_CHECKING:
    from ase import Atoms

    from pretrain_mlip.calculators.sources import Source


def scan(
    potentials: AnyPotentials = None,
    calculator: Calculator = None,
    elements: Elements = None,
    r_min: Annotated[float, typer.Option(help="Shortest distance, Å.")] = 0.4,
    r_max: Annotated[float, typer.Option(help="Longest distance, Å.")] = 8.0,
    points: Annotated[int, typer.Option(min=2, help="Number of distances.")] = 200,
    structure: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Of its first structure, a crystal or a liquid, also move one bond of each pair of elements from half "
            "of its length to twice.",
        ),
    ] = None,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder for scan.json, scan.png and bonds.png.", rich_help_panel=OUTPUT),
    ] = Path("scan"),
    device: Device = "auto",
) -> None:
    """Energy and force of isolated dimers of every pair of elements: is there a wall, and is the curve smooth?

    Example: pretrain-mlip scan runs/silica_mini/models/vanilla/best.pt runs/silica_mini/eam/eam.json
    Example: pretrain-mlip scan best.pt --structure quartz.cif
    """
    from pretrain_mlip.console import track
    from pretrain_mlip.files import write_json
    from pretrain_mlip.report.curves import bonds, dimers
    from pretrain_mlip.report.style import distinct_colours, save

    files: list[Path | None] = [*(potentials or [])]
    if not files or calculator is not None:
        files.append(None)
    options = {"needs_elements": True, "device": device, "dtype": "float64"}
    sources = [find_source(path, None if path else calculator, elements, **options) for path in files]
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        names = [str(path or calculator) for path in files]
    crystal = read_data(structure, require=())[0] if structure is not None else None
    if crystal is not None:
        for source in sources:
            source.check([crystal], str(structure))
    found = {
        name: _scanned(source, r_min, r_max, points, crystal)
        for name, source in zip(names, track(sources, "scanning"), strict=True)
    }
    write_json(output / "scan.json", found)
    written = [output / "scan.json", output / "scan.png"]
    with distinct_colours(names):
        save(dimers({name: entry["curves"] for name, entry in found.items()}), output / "scan.png")
        if crystal is not None:
            save(bonds({name: entry["bonds"] for name, entry in found.items()}), output / "bonds.png")
            written.append(output / "bonds.png")
    _print(found)
    typer.echo(f"written: {', '.join(map(str, written))}")


def _scanned(source: Source, r_min: float, r_max: float, points: int, crystal: Atoms | None) -> dict[str, Any]:
    from pretrain_mlip.validation.arena import arena_metrics, arena_scan
    from pretrain_mlip.validation.bonds import bond_metrics, scan_bonds
    from pretrain_mlip.validation.dimers import dimer_metrics, scan_dimers

    calculator = source.make()
    curves = scan_dimers(calculator, source.elements, r_min, r_max, points)
    arena = {}
    for name in curves:
        first, second = name.split("-")
        arena[name] = arena_metrics(arena_scan(calculator, (first, second)))
    moved = scan_bonds(calculator, crystal) if crystal is not None else {}
    bonds = {"bonds": moved, "bond_metrics": bond_metrics(moved)} if moved else {}
    return {"curves": curves, "metrics": dimer_metrics(curves), "arena": arena, **bonds}


def _print(found: dict[str, dict[str, Any]]) -> None:
    from pretrain_mlip.console import print_table, table
    from pretrain_mlip.validation.arena import TITLES

    for name, entry in found.items():
        metrics = entry["metrics"]
        columns = list(next(iter(metrics.values())))
        print_table(
            table(f"dimers of {name}", ["pair", *columns], [[pair, *_row(row)] for pair, row in metrics.items()])
        )
        titles = [f"{title} ({unit})" if unit else title for title, unit, _ in TITLES.values()]
        rows = [["(a simple well)", *(best for *_, best in TITLES.values())]]
        rows += [[pair, *_row(row)] for pair, row in entry["arena"].items()]
        print_table(table(f"measures of MLIP Arena, {name}", ["pair", *titles], rows))
        if "bond_metrics" in entry:
            units = {"length": "length (Å)", "jump": "jump (eV)", "minima": "other minima", "lowest": "lowest (eV)"}
            judged = entry["bond_metrics"]
            columns = [units.get(str(key), str(key)) for key in next(iter(judged.values()))]
            rows = [[pair, *_row(row)] for pair, row in judged.items()]
            print_table(table(f"bonds among their neighbours, {name}", ["pair", *columns], rows))


def _row(values: dict[str, Any]) -> list[Any]:
    return ["-" if value is None else value for value in values.values()]
