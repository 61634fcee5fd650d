"""Runs of several seeds, and studies: what they share, what they report, how they go on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from pretrain_mlip.cli.main import app
from pretrain_mlip.config import RunConfig
from pretrain_mlip.errors import InputError
from pretrain_mlip.pipeline.run import resume_pipeline, run_pipeline
from pretrain_mlip.pipeline.seeds import combined
from pretrain_mlip.pipeline.study import read_study, run_study
from pretrain_mlip.report.results import Results
from pretrain_mlip.report.study import StudyResults

TINY = """
data: {source: silica_mini, split: {n_train: 6, n_val: 3, n_test: 3}}
eam: {starts: 1, screening_iterations: 3, max_iterations: 8}
perturbation: {rounds: 1, copies: 1}
model: {hyperparameters: {width: 8, convolutions: 1, gaussians: 8, cutoff: 3.5}}
training: {epochs: 2, batch_size: 4}
pretraining: {epochs: 2, batch_size: 4}
stability: {replicas: 2, md: {duration_ps: 0.02}}
squeeze: {replicas: 1, md: {duration_ps: 0.02}}
rdf: null
verification: null
workers: 1
seeds: 2
compare: [vanilla, finetune]
"""


def content(output: Path, **changes: Any) -> dict[str, Any]:
    return yaml.safe_load(TINY) | {"output": str(output)} | changes


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_pipeline(RunConfig.model_validate(content(tmp_path_factory.mktemp("seeds") / "run", seed=3)))


def test_checks_and_phonons_of_several_seeds_are_the_worst() -> None:
    """Since the potential that is taken may be that of any."""
    sound, poor, failed = (
        {"a": {"category": "mandatory", "grade": grade, "error": error}}
        for grade, error in (("A", 1e-10), ("A", 1e-9), ("F", None))
    )
    bands = [{"labels": ("X", "Y"), "distances": [0.0], "frequencies": [[1.0]]}]
    stable = {"bands": bands, "lowest": -0.01}
    soft = {"bands": bands, "lowest": -2.0, "imaginary": True}
    softer = soft | {"lowest": -3.0}
    missing = {"failed": "no relaxation"}
    runs = [
        Results.model_validate(
            {
                "verification": {"x": one, "y": other},
                "phonons": {"quartz": {"x": band, "y": another}, "other": {"x": third, "y": third}},
            }
        )
        for one, other, band, another, third in (
            (sound, sound, stable, soft, softer),
            (poor, failed, soft, missing, soft),
        )
    ]
    together = combined(runs, RunConfig.model_validate(content(Path("run"))))
    checks = together.verification or {}
    assert (checks["x"]["a"].error, checks["y"]["a"].grade) == (1e-9, "F")
    crystal = (together.phonons or {})["quartz"]
    assert (crystal["x"].imaginary, crystal["y"].failed) == (True, "no relaxation")
    assert (together.phonons or {})["other"]["x"].lowest == -3.0
    assert combined([runs[0], Results()], RunConfig.model_validate(content(Path("run")))).verification is None


def test_seeds_differ_and_are_put_together(seeds: Path) -> None:
    runs = [Results.read(seeds / name) for name in ("seed-3", "seed-4")]
    together = Results.read(seeds)
    assert set(together.errors or {}) == {"eam", "vanilla", "pretrain", "finetune"}
    for model in ("eam", "vanilla", "finetune"):
        of_seeds = [(run.errors or {})[model]["all"].forces_mae for run in runs]
        assert model == "eam" or of_seeds[0] != of_seeds[1]  # one start of the fit has no seed
        assert [row.forces_mae for row in (together.seed_errors or {})[model]] == of_seeds
        assert (together.errors or {})[model]["all"].forces_mae == pytest.approx(np.mean(of_seeds))
        assert (together.survival or {})[model].summary.replicas == 4
        assert (together.squeeze or {})[model].summary.replicas == 2
        outcomes = [replica for run in runs for replica in (run.survival or {})[model].replicas]
        assert (together.survival or {})[model].replicas == outcomes
    assert together.provenance is not None
    assert together.provenance.seeds["run"] == [3, 4]
    assert "±" in (seeds / "report.html").read_text()


def test_the_best_potential_by_validation_is_where_that_of_one_run_would_be(seeds: Path) -> None:
    errors = {
        name: min(e for e in (Results.read(seeds / name).learning or {})["finetune"].val_forces_mae if e is not None)
        for name in ("seed-3", "seed-4")
    }
    best = min(errors, key=errors.__getitem__)
    expected = (seeds / best / "models" / "finetune" / "best.pt").read_bytes()
    assert (seeds / "models" / "finetune" / "best.pt").read_bytes() == expected


def test_a_seed_that_is_missing_is_made_again_the_same(seeds: Path, tmp_path: Path) -> None:
    shutil.copytree(seeds, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "seed-4")
    resume_pipeline(tmp_path / "copy")
    assert Results.read(tmp_path / "copy").errors == Results.read(seeds).errors


def test_another_configuration_is_refused(seeds: Path) -> None:
    with pytest.raises(InputError, match=r"seed-3: holds a run with another configuration \(training\.epochs was 2"):
        run_pipeline(RunConfig.model_validate(content(seeds, seed=3, training={"epochs": 3, "batch_size": 4})))


def test_a_refused_configuration_leaves_the_folder_as_it_was(seeds: Path) -> None:
    before = (seeds / "config.yaml").read_bytes()
    with pytest.raises(InputError, match="another configuration"):
        run_pipeline(RunConfig.model_validate(content(seeds, seed=3, training={"epochs": 9, "batch_size": 4})))
    assert (seeds / "config.yaml").read_bytes() == before


def test_nothing_of_one_kind_is_written_over_another(seeds: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds runs of several seeds, and this is a study"):
        run_study(read_study(study_content(seeds), "study.yaml"))
    single = run_pipeline(RunConfig.model_validate(content(tmp_path / "one", seeds=1, stability=None, squeeze=None)))
    with pytest.raises(InputError, match="holds a single run, and this is runs of several seeds"):
        run_pipeline(RunConfig.model_validate(content(single)))
    # Fewer seeds are those of the folder, and not a run beside them
    shutil.copytree(seeds, tmp_path / "copy")
    run_pipeline(RunConfig.model_validate(content(tmp_path / "copy", seed=3, seeds=1)))
    assert not (tmp_path / "copy" / "data").exists()
    rows = Results.read(tmp_path / "copy").errors or {}
    assert rows["vanilla"] == (Results.read(seeds / "seed-3").errors or {})["vanilla"]


def test_what_is_asked_for_later_is_made_for_every_seed(seeds: Path, tmp_path: Path) -> None:
    shutil.copytree(seeds, tmp_path / "copy")
    for folder in (tmp_path / "copy" / "seed-3", tmp_path / "copy" / "seed-4"):
        results = Results.read(folder)
        results.squeeze = None
        results.write(folder)
    run_pipeline(RunConfig.model_validate(content(tmp_path / "copy", seed=3)))
    assert (Results.read(tmp_path / "copy").squeeze or {})["vanilla"].summary.replicas == 2


def test_no_two_replicas_are_the_same(seeds: Path) -> None:
    replicas = (Results.read(seeds).survival or {})["eam"].replicas
    assert len({replica["seed"] for replica in replicas}) == 4


def study_content(output: Path) -> dict[str, Any]:
    silica, phosphorus = (
        {"data": {"source": name, "split": {"n_train": 6, "n_val": 3, "n_test": 3}}}
        for name in ("silica_mini", "phosphorus_mini")
    )
    common = content(output, seeds=1, compare=["vanilla", "delta"], stability=None, squeeze=None)
    del common["data"]
    models = {"narrow": {}, "wide": {"model": {"hyperparameters": {"width": 12}}}}
    return common | {"study": {"systems": {"silica": silica, "phosphorus": phosphorus}, "models": models}}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    (folder / "study.yaml").write_text(yaml.safe_dump(study_content(folder / "out") | {"workers": 2}, sort_keys=False))
    result = CliRunner().invoke(app, ["run", str(folder / "study.yaml")])
    assert result.exit_code == 0, result.output
    assert "of vanilla's, lower in" in result.output
    return folder / "out"


def test_a_row_for_every_system_architecture_and_strategy(study: Path) -> None:
    rows = StudyResults.read(study).rows
    strategies = ["eam", "vanilla", "pretrain", "delta"]
    assert [(row.system, row.model, row.strategy) for row in rows] == [
        (system, model, strategy)
        for system in ("silica", "phosphorus")
        for model in ("narrow", "wide")
        for strategy in strategies
    ]
    for row in rows:
        run = Results.read(study / row.system / row.model)
        assert row.forces_mae == [(run.errors or {})[row.strategy]["all"].forces_mae]
    page = (study / "report.html").read_text()
    assert page.count("<svg") == 2


def test_architectures_share_the_structures_of_their_system(study: Path) -> None:
    for part in ("eam/eam.json", "pretraining/train.extxyz", "data/test.extxyz"):
        one, other = (study / "silica" / model / "seed-0" / part for model in ("narrow", "wide"))
        assert one.read_bytes() == other.read_bytes()
    widths = [
        yaml.safe_load((study / "silica" / model / "config.yaml").read_text())["model"]["hyperparameters"]["width"]
        for model in ("narrow", "wide")
    ]
    assert widths == [8, 12]


def test_an_interrupted_study_goes_on(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    half = read_study(study_content(tmp_path / "half"), "study.yaml")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("pretrain_mlip.pipeline.trials.dimer_scans", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_study(half)
    result = CliRunner().invoke(app, ["resume", str(tmp_path / "half")])
    assert result.exit_code == 0, result.output
    assert StudyResults.read(tmp_path / "half").rows == StudyResults.read(study).rows


def test_rows_outlive_their_folders(study: Path, tmp_path: Path) -> None:
    """On another machine, with results.json alone: only what is new is computed, and no row is lost."""
    before = StudyResults.read(study)
    before.rows = before.rows[:4]  # of silica with narrow
    before.rows[0].forces_mae = [123.0]  # cannot be computed
    before.write(tmp_path)
    wanted = study_content(tmp_path)
    del wanted["study"]["systems"]["phosphorus"]
    run_study(read_study(wanted, "study.yaml"))
    assert not (tmp_path / "silica" / "narrow").exists()
    after = StudyResults.read(tmp_path)
    assert after.rows == [*before.rows, *StudyResults.read(study).rows[4:8]]
    assert set(after.made_with) == {"silica/narrow", "silica/wide"}


@pytest.mark.parametrize("change", [{"narrow": {"training": {"epochs": 1}}, "wide": {}}, {"wide": {}}])
def test_rows_that_would_be_lost(study: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    StudyResults.read(study).write(tmp_path)
    wanted = study_content(tmp_path)
    wanted["study"]["models"] = change
    with pytest.raises(InputError, match=r"results.json: holds rows of silica, narrow, whose runs are no longer there"):
        run_study(read_study(wanted, "study.yaml"))
    assert StudyResults.read(tmp_path).rows == StudyResults.read(study).rows


def test_rows_are_written_as_soon_as_they_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    half = study_content(tmp_path / "half") | {"strategies": ["vanilla"]}
    del half["compare"], half["study"]["systems"]["phosphorus"]
    monkeypatch.setattr("pretrain_mlip.pipeline.run._make_member", _only_narrow)
    with pytest.raises(KeyboardInterrupt):
        run_study(read_study(half, "study.yaml"))
    assert {row.model for row in StudyResults.read(tmp_path / "half").rows} == {"narrow"}
    assert (tmp_path / "half" / "report.html").exists()


def _only_narrow(member: Any) -> None:
    if member.until == "report" and "wide" in member.config.output:
        raise KeyboardInterrupt
    run_pipeline(member.config, member.until)


@pytest.mark.parametrize(
    ("place", "change", "words"),
    [
        ("models", {"wide": {"perturbation": {"copies": 2}}}, "silica, wide: 'perturbation' belongs to a system"),
        ("models", {"wide": {"model": {"name": "schnet"}}}, "no model 'schnet'"),
        ("models", {"wide": {"modle": {}}}, "silica, wide: unknown key 'modle'; did you mean 'model'"),
        ("systems", {"silica": {"output": "there"}}, "silica: output belongs to the whole study"),
        ("systems", {}, "study: 'systems'"),
        ("models", {"../wide": {}}, "'../wide' is to be the name of a folder"),
        ("models", {"log.txt": {}}, "'log.txt' is to be the name of a folder"),
        ("models", {"a/b": {}}, "'a/b' is to be the name of a folder"),
        ("system", {}, "unknown key 'system'"),
    ],
)
def test_what_a_study_refuses(tmp_path: Path, place: str, change: dict[str, Any], words: str) -> None:
    wrong = study_content(tmp_path / "out")
    if place == "models":
        wrong["study"]["models"] |= change
    else:
        wrong["study"][place] = change
    with pytest.raises(InputError, match=words):
        read_study(wrong, "study.yaml")


def test_architectures_that_need_no_perturbation(tmp_path: Path) -> None:
    plain = study_content(tmp_path / "out") | {"strategies": ["vanilla"]}
    del plain["compare"], plain["study"]["systems"]["phosphorus"]
    plain["study"]["models"]["wide"]["compare"] = ["finetune"]  # another name of a setting of the whole
    run_study(read_study(plain, "study.yaml"))
    assert [row.strategy for row in StudyResults.read(tmp_path / "out").rows] == [
        *("eam", "vanilla"),
        *("eam", "pretrain", "finetune"),
    ]


def test_a_study_is_not_started_by_torchrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = read_study(study_content(tmp_path / "out"), "study.yaml")
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "1")
    with pytest.raises(InputError, match="cannot be started by torchrun"):
        run_study(found)
    assert not (tmp_path / "out").exists()


def test_compare_and_strategies_are_one_setting(tmp_path: Path) -> None:
    assert RunConfig.model_validate(content(tmp_path)).strategies == ["vanilla", "finetune"]
    with pytest.raises(ValueError, match="give one of them"):
        RunConfig.model_validate(content(tmp_path, strategies=["vanilla"]))
