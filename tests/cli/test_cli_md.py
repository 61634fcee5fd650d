"""``md`` as its user runs it."""

from __future__ import annotations

from pathlib import Path

from ase.build import bulk
from ase.io import read, write
from tests.cli.running import fails, run, succeeds


def test_md_with_any_calculator(tmp_path: Path) -> None:
    write(tmp_path / "copper.extxyz", bulk("Cu", cubic=True) * (2, 2, 2))
    md = ("md", "--calculator", "ase.calculators.emt:EMT", tmp_path / "copper.extxyz", "-o", tmp_path / "md.extxyz")
    short = ("duration_ps=0.02", "save_every=5")
    assert "completed" in succeeds(*md, "--elements", "Cu,Au", "ensemble=npt_full", "pressure_gpa=1", *short)
    assert len(read(tmp_path / "md.extxyz", ":")) == 3
    done = run(*md, *short, "failure.energy_range=[-9, -5]", "failure.reference_energies.Cu=20")
    assert done.returncode == 1
    assert "energy too low at step 0" in done.stdout
    assert read(tmp_path / "md.failed.extxyz").info["step"] == 0
    assert "has ended" in fails(*md, *short, "--resume")
    for wrong, message in (
        (["--elements", "Au"], "holds Cu"),
        (["--compile"], "--compile: "),
        (["--dtype", "float32"], "potentials of this package"),
        (["--reference", "silica_mini"], "rdf_deviation"),
        (["failure.rdf_deviation=1"], "reference"),
        (["ensemble=nve", "friction=0.2"], "error: settings: friction: has no effect with ensemble=nve"),
        (["ensemble=nvt"], "ensemble"),
        ([tmp_path / "copper.extxyz"], "expected STRUCTURE with --calculator"),
    ):
        assert message in fails(*md, *short, *wrong)
    assert "expected POTENTIAL STRUCTURE" in fails("md", tmp_path / "copper.extxyz")
