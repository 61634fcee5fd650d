"""``evaluate`` as its user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.running import fails, succeeds


def test_evaluate(silica: Path, network: Path, tmp_path: Path) -> None:
    text = succeeds("evaluate", network, silica, "-o", tmp_path / "e")
    assert "meV" in text
    table = json.loads((tmp_path / "e" / "errors.json").read_text())
    assert table["all"]["frames"] == 12
    assert (tmp_path / "e" / "parity.png").stat().st_size > 1000
    (tmp_path / "own.py").write_text(
        f"from pretrain_mlip import PretrainedMLIP\ndef make():\n    return PretrainedMLIP.load({str(network)!r})\n"
    )
    succeeds("evaluate", "--calculator", f"{tmp_path / 'own.py'}:make", silica, "-o", tmp_path / "own")
    own = json.loads((tmp_path / "own" / "errors.json").read_text())
    assert own["all"] == pytest.approx(table["all"], rel=1e-4)  # float32, not in batches
    assert "of potentials of this package" in fails(
        "evaluate", "--calculator", "ase.calculators.emt:EMT", silica, "--dtype", "float32"
    )
    assert "no such settings" in fails("evaluate", network, silica, "dtype=float32")
