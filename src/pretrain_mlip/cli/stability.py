"""``stability``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pretrain_mlip.cli.common import (
    OUTPUT,
    READABLE,
    Calculator,
    Config,
    Device,
    Dtype,
    Elements,
    files_and_overrides,
    find_source,
    read_data,
    refuse_options,
)

if TYPE_CHECKING:
    from pretrain_mlip.calculators.sources import Source


def stability(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="[POTENTIAL]... [KEY=VALUE]...",
            help=f"{READABLE}; and settings, such as replicas=20 md.duration_ps=10.",
            show_default=False,
        ),
    ],
    structures: Annotated[
        str, typer.Option(metavar="DATA", help="What replicas start from: a file, or an embedded data set by name.")
    ],
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="heat, compress, nvt, nve, or those of MLIP Arena: arena_heat, arena_compress. May be repeated.  "
            "\\[default: heat]",
            show_default=False,
        ),
    ] = None,
    calculator: Calculator = None,
    elements: Elements = None,
    training: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Labelled structures that the potentials were trained on: the energies that are possible.",
        ),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(metavar="NAME", help="The potential to compare the others with; else the first.")
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the campaign.", rich_help_panel=OUTPUT)
    ] = Path("stability"),
    device: Device = "auto",
    dtype: Dtype = None,
    config: Config = None,
) -> None:
    """How long do potentials survive hot, cold and squeezed MD? The same replicas for all, compared in a report.

    Potentials are those of this package and, with --calculator, any other. Give the EAM too: the ceiling of what can be
    learned from it. A campaign that was interrupted goes on with the same command; more protocols, potentials or
    replicas can be added with another.

    Example: pretrain-mlip stability vanilla/best.pt finetune/best.pt eam.json --structures silica_mini
    Example: pretrain-mlip stability best.pt --structures hot.extxyz --protocol nvt 'temperatures=[300,1000]' workers=4
    """
    from pretrain_mlip.errors import InputError
    from pretrain_mlip.pipeline.stability import names_of, read_trials, run_stability
    from pretrain_mlip.settings import read_content

    files, overrides = files_and_overrides(arguments)
    trials = read_trials(protocol or ["heat"], read_content(config, overrides), str(config or "settings"))
    sources = _sources(files, calculator, elements, device, dtype)
    names = names_of(sources, [source.place for source in sources])
    if baseline is not None and baseline not in names:
        raise InputError(f"--baseline {baseline}: the potentials are {', '.join(names)}")
    frames = read_data(structures, require=())
    for source in sources:
        source.check(frames, structures)
    potentials = dict(zip(names, sources, strict=True))
    if training is not None:
        from pretrain_mlip.pipeline.trials import watched_for

        known = read_data(training)
        trials = {
            name: trial.model_copy(update={"failure": watched_for(trial.failure, known, {})})
            for name, trial in trials.items()
        }
    try:
        report = run_stability(potentials, frames, trials, output, data=structures, baseline=baseline)
    except KeyboardInterrupt:
        typer.echo(f"{output}: the same command goes on with the replicas that are left", err=True)
        raise
    _print(output)
    typer.echo(f"written: {output / 'results.json'}, {report}")


def _sources(
    files: list[str], calculator: str | None, elements: str | None, device: str, dtype: str | None
) -> list[Source]:
    from pretrain_mlip.errors import InputError

    if not files and calculator is None:
        raise InputError("give potentials, or --calculator module:function")
    if not files:
        refuse_options({"--dtype": dtype, "--device": device != "auto"}, "are of potentials of this package")
    sources = [find_source(Path(file), None, elements, device=device, dtype=dtype) for file in files]
    return sources if calculator is None else [*sources, find_source(None, calculator, elements)]


def _print(output: Path) -> None:
    from pretrain_mlip.console import print_table, table
    from pretrain_mlip.report.stability import StabilityResults, tells_nothing, verdict
    from pretrain_mlip.report.tables import survival_table

    for name, trial in StabilityResults.read(output).model_dump(mode="json")["trials"].items():
        shown = survival_table(trial["survival"], (trial["baseline"], trial["logrank"]))
        columns = ["potential", *shown.columns[1:]]
        print_table(table(name, columns, [[cell.text for cell in row] for row in shown.rows]))
        if tells_nothing(trial["survival"]):
            typer.echo(verdict(name, trial))
