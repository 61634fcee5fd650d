"""``eos``, ``elastic``, ``phonons`` and ``vacancies`` as their users run them."""

from __future__ import annotations

from pathlib import Path

import pytest
from ase.build import bulk, fcc111
from ase.io import write
from tests.cli.running import fails, run, succeeds
from tests.conftest import quartz


def test_properties_of_crystals(eam: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write("copper.extxyz", [bulk("Cu", a=3.7), bulk("Cu")])
    write("bcc.extxyz", bulk("Cu", "bcc", a=2.85))
    write("slab.extxyz", fcc111("Cu", (1, 1, 2), vacuum=5.0))
    write("quartz.extxyz", quartz())
    emt = ("--calculator", "ase.calculators.emt:EMT")
    assert "bulk modulus (GPa)" in succeeds("eos", *emt, "copper.extxyz", "--points", "7")
    assert "stable" in succeeds("elastic", *emt, "copper.extxyz", "--index", "0")
    assert "Fm-3m" in succeeds("phonons", *emt, "copper.extxyz", "--length", "8")
    assert "Cu, atom 0" in succeeds("vacancies", *emt, "copper.extxyz", "--length", "8")
    for written in ("eos/eos.png", "elastic/elastic.json", "phonons/phonons.png", "vacancies/vacancies.json"):
        assert (tmp_path / written).stat().st_size > 150
    imaginary = run("phonons", *emt, "bcc.extxyz", "--length", "8")
    assert imaginary.returncode == 1
    assert "YES" in imaginary.stdout
    assert run("elastic", *emt, "bcc.extxyz").returncode == 1
    for wrong, message in (
        (["eos", eam, "copper.extxyz"], "holds Cu; eam is for O, Si"),
        (["eos", *emt, "quartz.extxyz"], "quartz.extxyz: EMT cannot compute O6Si3: NotImplementedError: No EMT"),
        (["scan", *emt, "--elements", "Cu", "--structure", "quartz.extxyz"], "holds O, Si; EMT is for Cu"),
        (["evaluate", *emt, "silica_mini"], "silica_mini: EMT cannot compute"),
        (["md", *emt, "quartz.extxyz"], "quartz.extxyz: EMT cannot compute"),
        (["stability", *emt, "--structures", "quartz.extxyz", "replicas=1"], "EMT cannot compute"),
        (["stability", *emt, "--structures", "quartz.extxyz", "--dtype", "float32", "replicas=1"], "of this package"),
        (["eos", *emt, "slab.extxyz", "--no-relax"], "periodic in three directions"),
        (["phonons", *emt, "slab.extxyz", "--no-relax"], "periodic in three directions"),
        (["eos", *emt, "copper.extxyz", "--index", "2"], "there is no structure 2"),
        (["eos", *emt, "copper.extxyz", "span=0.1"], "span=0.1: this command has no such settings"),
        (["vacancies", *emt, "copper.extxyz", "--mu", "Cu"], "--mu Cu: expected an element"),
        (["phonons", *emt, "copper.extxyz", "bcc.extxyz"], "expected STRUCTURE with --calculator"),
    ):
        assert message in fails(*wrong)
