"""``stability`` as its user runs it."""

from __future__ import annotations

import json
from pathlib import Path

from ase.build import bulk
from ase.io import write
from tests.cli.running import fails, succeeds
from tests.conftest import quartz


def test_stability(eam: Path, network: Path, tmp_path: Path) -> None:
    write(tmp_path / "start.extxyz", [quartz(), quartz() * (1, 1, 2)])
    command = ("stability", eam, network, "--structures", tmp_path / "start.extxyz", "-o", tmp_path / "campaign")
    short = ("md.duration_ps=0.02", "replicas=2")
    told = succeeds(*command, *short, "--protocol", "compress", "--training", "silica_mini", "--baseline", network.stem)
    assert f"p against {network.stem}" in told
    assert "compress" in told
    results = json.loads((tmp_path / "campaign" / "results.json").read_text())
    assert results["trials"]["compress"]["failure"]["energy_range"] is not None
    (tmp_path / "campaign" / "report.html").unlink()
    assert "report.html" in succeeds("report", tmp_path / "campaign")
    assert "<h2>Compress</h2>" in (tmp_path / "campaign" / "report.html").read_text()
    write(tmp_path / "copper.extxyz", bulk("Cu", cubic=True))
    copper = ("stability", "--structures", tmp_path / "copper.extxyz", "-o", tmp_path / "copper", *short)
    assert "EMT" in succeeds(*copper, "--calculator", "ase.calculators.emt:EMT", "workers=2")
    for wrong, message in (
        ([eam], "holds Cu; eam is for O, Si"),
        ([], "give potentials"),
        ([eam, eam], "twice"),
        ([eam, "--baseline", "sam"], "--baseline sam: the potentials are eam"),
        ([eam, "--protocol", "boil"], "protocol 'boil'"),
        (["absent.pt"], "absent.pt"),
    ):
        assert message in fails(*copper, *wrong)
