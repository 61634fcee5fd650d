"""``train`` as its user runs it."""

from __future__ import annotations

from pathlib import Path

from tests.cli.running import succeeds


def test_train_one_strategy(silica: Path, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        f"data: {silica}\noutput: {tmp_path / 'run'}\neam: {{starts: 1, max_iterations: 5, screening_iterations: 5}}\n"
        "perturbation: {rounds: 1, copies: 1}\ntraining: {epochs: 2}\n"
        "model: {hyperparameters: {width: 4, convolutions: 1}}\n"
    )
    succeeds("train", tmp_path / "c.yaml", "--strategy", "vanilla")
    assert (tmp_path / "run" / "models" / "vanilla" / "best.pt").exists()
    assert not (tmp_path / "run" / "models" / "pretrain").exists()
    assert not (tmp_path / "run" / "report.html").exists()
