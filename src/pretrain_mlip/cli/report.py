"""``report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Folder of a run with results.json.")],
) -> None:
    """(Re)write report.html and figures from results.json.

    Example: pretrain-mlip report runs/silica_mini
    """
    from pretrain_mlip.report.html import write_report

    typer.echo(write_report(run_dir))
