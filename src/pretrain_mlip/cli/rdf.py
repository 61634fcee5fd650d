"""``rdf``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pretrain_mlip.cli.common import OUTPUT, read_data

if TYPE_CHECKING:
    from pretrain_mlip.dynamics.rdf import Deviation


def rdf(
    trajectories: Annotated[list[str], typer.Argument(metavar="TRAJ...", help="Trajectories or data sets.")],
    reference: Annotated[str | None, typer.Option(help="Structures to compare with, from DFT say.")] = None,
    pairs: Annotated[str | None, typer.Option(help="Pairs of elements, such as Si-O,O-O; all where not given.")] = None,
    r_max: Annotated[float, typer.Option(help="Largest distance, Å.")] = 6.0,
    bins: Annotated[int, typer.Option(help="Number of bins.")] = 120,
    skip: Annotated[int, typer.Option(min=0, help="Frames at the start of each trajectory that are left out.")] = 0,
    blocks: Annotated[int, typer.Option(help="Blocks of consecutive frames that errors come from.")] = 5,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for rdf.json and rdf.png.", rich_help_panel=OUTPUT)
    ] = Path("rdf"),
) -> None:
    """Radial distribution functions, total and of every pair of elements, with errors by averages over blocks.

    Example: pretrain-mlip rdf md.extxyz --reference dft.extxyz --pairs Si-O,O-O
    """
    from pretrain_mlip.console import print_table, table
    from pretrain_mlip.dynamics.rdf import radial_distribution, rdf_deviations
    from pretrain_mlip.errors import InputError
    from pretrain_mlip.files import write_json
    from pretrain_mlip.report import curves
    from pretrain_mlip.report.style import distinct_colours, save

    wanted = [pair.strip() for pair in pairs.split(",")] if pairs else None
    functions, short = {}, [Path(place).name for place in trajectories]
    for place, name in zip(trajectories, short if len(set(short)) == len(short) else trajectories, strict=True):
        frames = read_data(place, require=())
        if skip >= len(frames):
            raise InputError(f"{place}: --skip {skip} leaves nothing of {len(frames)} frames")
        functions[name] = radial_distribution(frames[skip:], r_max, bins, wanted, blocks)
    known = radial_distribution(read_data(reference, require=()), r_max, bins, wanted, blocks) if reference else None
    deviations = {name: rdf_deviations(found, known) for name, found in functions.items()} if known else {}
    content = {
        "reference": known.to_dict() if known else None,
        "models": {name: found.to_dict() for name, found in functions.items()},
        "deviations": {name: {key: one._asdict() for key, one in row.items()} for name, row in deviations.items()},
    }
    write_json(output / "rdf.json", content)
    with distinct_colours(functions):
        save(curves.rdf(content), output / "rdf.png")
    if deviations:
        columns = sorted({pair for row in deviations.values() for pair in row})
        rows = [[name, *(_text(row.get(c)) for c in columns)] for name, row in deviations.items()]
        title = f"mean |g - g_reference| up to {r_max:g} Å ± standard error (what noise alone gives)"
        print_table(table(title, ["trajectory", *columns], rows))
    typer.echo(f"written: {output / 'rdf.json'}, {output / 'rdf.png'}")


def _text(found: Deviation | None) -> str:
    if found is None:
        return "-"
    if found.error is None:
        return f"{found.mae:.4f}"
    return f"{found.mae:.4f} ± {found.error:.4f} ({found.noise:.4f})"
