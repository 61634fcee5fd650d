"""``run``, ``resume`` and ``train``: the whole pipeline, or its part up to trained networks."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[
    Path | None,
    typer.Argument(
        metavar="[CONFIG.yaml]", help="Configuration; without it, the silica demonstration.", show_default=False
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Settings, such as training.epochs=50.", show_default=False),
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Folder of an interrupted run.")]


def run(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Run everything: EAM, perturbation, training, tests, MD, report.

    Example: pretrain-mlip run my.yaml training.epochs=50

    A run that was interrupted goes on where it was when it is started again with the same configuration. With a group
    'study' the file describes runs on several systems and with several architectures (docs: studies).
    """
    if study := _study(config, overrides):
        _conclude_study(study)
        return
    from pretrain_mlip.pipeline.run import run_pipeline

    _conclude(run_pipeline(_configuration(config, overrides)))


def train(
    config: ConfigFile = None,
    overrides: Overrides = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option(help="vanilla, sam, pretrain, finetune, replay or delta; in place of the configuration's."),
    ] = None,
) -> None:
    """Train strategies, with the EAM and perturbed structures that they need, and stop there.

    Example: pretrain-mlip train my.yaml --strategy vanilla
    """
    from pretrain_mlip.errors import InputError
    from pretrain_mlip.pipeline.run import run_pipeline

    if _study(config, overrides):
        raise InputError(f"{config}: describes a study, whose runs are made whole: pretrain-mlip run {config}")
    extra = [f"strategies=[{','.join(strategy)}]"] if strategy else []
    run_pipeline(_configuration(config, [*(overrides or []), *extra]), until="training")


def resume(run_dir: RunFolder) -> None:
    """Go on with an interrupted run, in its folder and with its configuration.

    Example: pretrain-mlip resume runs/silica_mini
    """
    if study := _study(run_dir / "config.yaml", None, run_dir):
        _conclude_study(study)
        return
    from pretrain_mlip.pipeline.run import resume_pipeline

    _conclude(resume_pipeline(run_dir))


def _conclude(run_dir: Path) -> None:
    """The verdict of the report, on the terminal."""
    from pretrain_mlip.console import is_first_process, print_table, table
    from pretrain_mlip.report.results import Results
    from pretrain_mlip.report.tables import verdict_table
    from pretrain_mlip.report.verdict import verdict

    if not is_first_process():
        return
    results = Results.read(run_dir).model_dump(mode="json")
    content = verdict_table(results)
    if content is not None:
        print_table(table("", content.columns, [[cell.text for cell in row] for row in content.rows]))
    typer.echo("\n".join([*verdict(results), f"report: {run_dir / 'report.html'}"]))


def _study(config: Path | None, overrides: list[str] | None, folder: Path | None = None):
    """The study that a file describes; None where it describes a run."""
    from pretrain_mlip.config import RunConfig
    from pretrain_mlip.settings import read_content

    if config is None or not config.is_file():
        return None
    content = read_content(config, overrides or [], RunConfig.aliases)
    if "study" not in content:
        return None
    if folder is not None:
        content["output"] = str(folder)  # where it now is
    from pretrain_mlip.pipeline.study import read_study

    return read_study(content, str(config))


def _conclude_study(study) -> None:
    """Make a study, and print what its report says first."""
    from pretrain_mlip.pipeline.study import run_study
    from pretrain_mlip.report.study import StudyResults, study_verdict

    folder = run_study(study)
    typer.echo("\n".join([*study_verdict(StudyResults.read(folder).rows), f"report: {folder / 'report.html'}"]))


def _configuration(config: Path | None, overrides: list[str] | None):  # keeps pydantic out of --help
    from pretrain_mlip.config import RunConfig
    from pretrain_mlip.settings import read_settings

    overrides = list(overrides or [])
    if config is not None and "=" in str(config) and not config.exists():  # run key=value, without a file
        overrides.insert(0, str(config))
        config = None
    if config is not None:
        return read_settings(RunConfig, config, overrides)
    with as_file(files("pretrain_mlip") / "data" / "demo.yaml") as demo:
        return read_settings(RunConfig, demo, overrides)
