"""What has changed between a stop and the next start is refused by its name, never mixed in."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from tests.pipeline.tiny import TINY, config

from pretrain_mlip.errors import InputError
from pretrain_mlip.pipeline import preparation
from pretrain_mlip.pipeline.folder import RunFolder
from pretrain_mlip.pipeline.run import resume_pipeline, run_pipeline
from pretrain_mlip.report.results import Results
from pretrain_mlip.structures.datasets import load_dataset
from pretrain_mlip.structures.io import set_labels, write_structures

PLAIN = {"strategies": ["vanilla"], "stability": None, "squeeze": None, "rdf": None}


def test_an_edited_config_is_refused_by_resume_key_by_key(tmp_path: Path) -> None:
    run = run_pipeline(config(tmp_path / "run", **PLAIN), until="preparation")
    path = RunFolder(run).config
    text = path.read_text()
    longer = re.sub(r"^(training:\n  epochs: )4", r"\g<1>7", text, flags=re.MULTILINE)
    path.write_text(longer.replace("prior: 0.02", "prior: 0.1"))
    with pytest.raises(InputError, match=r"\(eam\.prior was 0\.02, is 0\.1; training\.epochs was 4, is 7\)"):
        resume_pipeline(run)
    assert "epochs: 7" in path.read_text()  # what somebody wrote stays
    path.write_text(text.replace("workers: 1", "workers: 2"))  # changes no result
    resume_pipeline(run)
    assert RunFolder(run).potential("vanilla").exists()


def test_more_strategies_can_be_trained_until_they_are_compared(tmp_path: Path) -> None:
    run = run_pipeline(config(tmp_path / "run", **PLAIN), until="training")
    before = RunFolder(run).potential("vanilla").stat().st_mtime_ns
    more = PLAIN | {"strategies": ["vanilla", "sam"]}
    run_pipeline(config(run, **more))
    assert RunFolder(run).potential("vanilla").stat().st_mtime_ns == before
    assert set(Results.read(run).errors or {}) == {"eam", "vanilla", "sam"}
    with pytest.raises(InputError, match=r"strategies was \['vanilla', 'sam'\], is \['vanilla'\]"):
        run_pipeline(config(run, **PLAIN))


def test_many_changes_are_counted(tmp_path: Path) -> None:
    run_pipeline(config(tmp_path / "run", **PLAIN), until="preparation")
    perturbation = {"rounds": 2, "copies": 2, "shear": 0.1, "displacement": 0.1, "moves": 1}
    eam = {"starts": 2, "screening_iterations": 6, "max_iterations": 15, "prior": 1, "cutoff": 7}
    with pytest.raises(InputError, match=r"eam\.cutoff was 8\.0, is 7\.0; .*; and 1 more\)"):
        run_pipeline(config(tmp_path / "run", perturbation=perturbation, eam=eam, **PLAIN))


def test_a_file_that_has_changed_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "mine.extxyz"
    write_structures(source, load_dataset("silica_mini")[:14])
    content = source.read_bytes()
    text = TINY.replace("source: silica_mini", f"source: {source}")
    run = run_pipeline(config(tmp_path / "run", text, **PLAIN), until="preparation")
    source.write_bytes(content.replace(b"energy=-", b"energy=-1", 1))
    for go_on in (lambda: resume_pipeline(run), lambda: run_pipeline(config(run, text, **PLAIN))):
        with pytest.raises(InputError, match=r"mine\.extxyz: has changed since .*run was begun; restore it"):
            go_on()
    assert not (run / "models").exists()
    source.rename(tmp_path / "elsewhere.extxyz")
    source.mkdir()  # no file, so that it is not looked at
    resume_pipeline(run)  # with the copy that it has
    assert RunFolder(run).potential("vanilla").exists()


def test_a_file_that_cannot_be_read_any_more_is_not_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = tmp_path / "mine.extxyz"
    write_structures(source, load_dataset("silica_mini")[:14])
    text = TINY.replace("source: silica_mini", f"source: {source}")
    run = run_pipeline(config(tmp_path / "run", text, **PLAIN), until="preparation")

    def denied(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(preparation, "sha256", denied)
    run_pipeline(config(run, text, **PLAIN), until="preparation")
    assert "mine.extxyz: cannot be read (Permission denied); the run goes on with what it read then" in caplog.text


def test_forces_that_are_all_zero_are_refused_unless_they_are_left_out(tmp_path: Path) -> None:
    frames = load_dataset("silica_mini")[:14]
    for atoms in frames:
        set_labels(atoms, atoms.calc.results["energy"], np.zeros((len(atoms), 3)))
    write_structures(tmp_path / "zero.extxyz", frames)
    text = TINY.replace("source: silica_mini", f"source: {tmp_path / 'zero.extxyz'}")
    message = r"zero\.extxyz: all forces of the training set are exactly zero; .*loss\.forces=0 eam\.forces_weight=0"
    with pytest.raises(InputError, match=message):
        run_pipeline(config(tmp_path / "run", text, **PLAIN))
    assert not (tmp_path / "run" / "data").exists()  # so that the remedy can be tried in the same folder
    without = text.replace("max_iterations: 15", "max_iterations: 15, forces_weight: 0").replace(
        "training: {epochs: 4,", "training: {loss: {forces: 0}, metric: energy, epochs: 4,"
    )
    run = run_pipeline(config(tmp_path / "run", without, **PLAIN), until="training")
    assert RunFolder(run).potential("vanilla").exists()
