"""``md``, ``scan`` and ``rdf`` as their users run them."""

from __future__ import annotations

import json
from pathlib import Path

from ase.io import read, write
from tests.cli.running import run, succeeds
from tests.conftest import quartz


def test_md_scan_rdf(eam: Path, network: Path, tmp_path: Path) -> None:
    write(tmp_path / "quartz.extxyz", quartz())
    done = run("md", eam, tmp_path / "quartz.extxyz", "-o", tmp_path / "md.extxyz", "duration_ps=0.05", "save_every=10")
    assert done.returncode in (0, 1)  # a random EAM may well fail, and says so
    assert ("completed" in done.stdout) == (done.returncode == 0)
    assert len(read(tmp_path / "md.extxyz", ":")) >= 1
    emt = ("--calculator", "ase.calculators.emt:EMT")
    succeeds("scan", network, eam, "-o", tmp_path / "scan", "--points", 20)
    content = json.loads((tmp_path / "scan" / "scan.json").read_text())
    assert list(content) == [network.stem, eam.stem]
    assert set(content[eam.stem]["curves"]) == set(content[eam.stem]["arena"]) == {"O-O", "O-Si", "Si-Si"}
    succeeds("scan", network, *emt, "--elements", "O", "-o", tmp_path / "scan", "--points", 20)
    content = json.loads((tmp_path / "scan" / "scan.json").read_text())
    assert [list(entry["curves"]) for entry in content.values()] == [["O-O"], ["O-O"]]
    assert content["EMT"]["arena"]["O-O"]["force_flips"] == 1
    text = succeeds("rdf", "silica_mini", "--reference", "silica_mini", "--pairs", "Si-O", "-o", tmp_path / "rdf")
    assert "O-Si" in text
    assert json.loads((tmp_path / "rdf" / "rdf.json").read_text())["reference"]["frames"] > 10
