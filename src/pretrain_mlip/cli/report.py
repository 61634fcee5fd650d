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
    from pretrain_mlip.files import read_json
    from pretrain_mlip.report.html import write_report
    from pretrain_mlip.report.results import FILE_NAME
    from pretrain_mlip.report.study import write_study_report

    content = read_json(run_dir / FILE_NAME)
    of_study = isinstance(content, dict) and content.get("kind") == "study"
    typer.echo((write_study_report if of_study else write_report)(run_dir))
