"""The command ``pretrain-mlip``: its list of commands, and how errors end it."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

import pretrain_mlip
from pretrain_mlip.cli import (
    datasets,
    eam,
    evaluate,
    export,
    lammps,
    md,
    perturb,
    properties,
    rdf,
    report,
    run,
    scan,
    stability,
    verify,
)
from pretrain_mlip.console import set_up_logging, stderr
from pretrain_mlip.errors import InputError, PretrainMLIPError
from pretrain_mlip.memory import keep_memory

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Reliable machine-learned interatomic potentials: fit an embedded-atom potential (EAM) to DFT data, pretrain "
    "a network on strongly perturbed structures that it labels, finetune on DFT, and see what survives hot MD.",
    epilog="Example: pretrain-mlip run (the whole method on an embedded silica data set, about seven minutes).",
)
TOGETHER = ("run", "resume", "train")  # several processes that torchrun starts can share these
METHOD, POTENTIALS, DATA = "The method", "Potentials at work", "Data"
app.command(rich_help_panel=METHOD)(run.run)
app.command(rich_help_panel=METHOD)(run.resume)
app.command("fit-eam", rich_help_panel=METHOD)(eam.fit_eam)
app.command("perturb", rich_help_panel=METHOD)(perturb.perturb)
app.command("label", rich_help_panel=METHOD)(perturb.label)
app.command(rich_help_panel=METHOD)(run.train)
app.command(rich_help_panel=METHOD)(report.report)
app.command(rich_help_panel=POTENTIALS)(evaluate.evaluate)
app.command(rich_help_panel=POTENTIALS)(md.md)
app.command(rich_help_panel=POTENTIALS)(stability.stability)
app.command(rich_help_panel=POTENTIALS)(scan.scan)
app.command(rich_help_panel=POTENTIALS)(rdf.rdf)
for command in (properties.eos, properties.elastic, properties.phonons, properties.vacancies):
    app.command(rich_help_panel=POTENTIALS)(command)
app.command(rich_help_panel=POTENTIALS)(verify.verify)
app.command(rich_help_panel=POTENTIALS)(export.export)
app.add_typer(lammps.app, name="lammps", rich_help_panel=POTENTIALS)
app.add_typer(datasets.app, name="datasets", rich_help_panel=DATA)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"pretrain-mlip {pretrain_mlip.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version
    if int(os.environ.get("WORLD_SIZE") or 1) > 1 and context.invoked_subcommand not in TOGETHER:
        raise InputError(
            f"'{context.invoked_subcommand}' runs in one process; torchrun (WORLD_SIZE={os.environ['WORLD_SIZE']}) is "
            f"for {', '.join(TOGETHER)}"
        )
    set_up_logging()


def main() -> None:
    """Run the command line; exit status 0, 1 (failed) or 2 (bad input or usage)."""
    keep_memory()
    try:
        app()
    except PretrainMLIPError as error:
        stderr().print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        stderr().print("interrupted", style="red")
        sys.exit(130)
    except OSError as error:  # disk full, a file taken away while it is read: not bad input, but no traceback either
        stderr().print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
