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
    from pretrain_mlip.report.stability import write_stability_report
    from pretrain_mlip.report.study import write_study_report

    content = read_json(run_dir / FILE_NAME)
    kind = content.get("kind", "") if isinstance(content, dict) else ""
    writers = {"study": write_study_report, "stability": write_stability_report}
    typer.echo(writers.get(kind, write_report)(run_dir))
