"""``fit-eam``, and ``export`` of the tables of an EAM, as their users run them."""

from __future__ import annotations

from pathlib import Path

from ase.io import write
from tests.cli.running import fails, succeeds

from pretrain_mlip.structures.datasets import load_dataset


def test_fit_eam_and_export(silica: Path, tmp_path: Path) -> None:
    out = tmp_path / "fit"
    text = succeeds("fit-eam", silica, "-o", out, "starts=1", "max_iterations=10", "screening_iterations=5")
    assert "force RMSE" in text
    for name in ("eam.json", "eam.eam.alloy", "eam.png"):
        assert (out / name).stat().st_size > 1000
    text = succeeds("export", out / "eam.json", "--format", "setfl", "-o", tmp_path / "again.eam.alloy")
    assert "pair_style eam/alloy" in text
    assert (tmp_path / "again.eam.alloy").read_bytes() == (out / "eam.eam.alloy").read_bytes()


def test_tables_stand_for_a_potential(eam: Path, silica: Path, tmp_path: Path) -> None:
    tables, again = tmp_path / "published.eam.alloy", tmp_path / "again.eam.alloy"
    succeeds("export", eam, "-o", tables, "--points-r", 2001, "--points-rho", 3000)
    assert tables.read_text().splitlines()[4].split()[::2] == ["3000", "2001", "6"]
    assert "pair_style eam/alloy" in succeeds("export", tables, "-o", again)
    assert again.read_text().splitlines()[3:] == tables.read_text().splitlines()[3:]
    assert "keep their sizes" in fails("export", tables, "-o", again, "--points-r", 500)
    succeeds("label", silica, "--potential", tables, "-o", tmp_path / "labelled.extxyz")
    succeeds("evaluate", tables, tmp_path / "labelled.extxyz")
    succeeds("scan", tables, "-o", tmp_path / "scan")
    tables.write_text(tables.read_text()[:-3000])
    assert "published.eam.alloy: line" in fails("label", silica, "--potential", tables, "-o", tmp_path / "l.extxyz")


def test_fit_eam_to_everything_and_labels_by_other_names(tmp_path: Path) -> None:
    atoms = load_dataset("silica_mini")[0]
    results = atoms.calc.results
    atoms.info["dft_energy"], atoms.arrays["dft_forces"] = results["energy"], results["forces"]
    atoms.calc = None
    write(tmp_path / "one.extxyz", atoms, format="extxyz")
    arguments = ("fit-eam", tmp_path / "one.extxyz", "-o", tmp_path / "eam", "starts=1", "max_iterations=3")
    assert "energy_key=dft_energy" in fails(*arguments)
    keys = ("--keys", "energy_key=dft_energy", "--keys", "forces_key=dft_forces")
    assert "--all" in fails(*arguments, *keys)  # one structure cannot be divided
    text = succeeds(*arguments, *keys, "--all")
    assert "train" in text
    assert "held_out" not in text
    assert "dft_energie" in fails(
        "evaluate", tmp_path / "eam" / "eam.json", tmp_path / "one.extxyz", "--keys", "energy_key=dft_energie"
    )
    assert "all" in succeeds("evaluate", tmp_path / "eam" / "eam.json", tmp_path / "one.extxyz", *keys)
    assert "energy" in succeeds("datasets", "info", tmp_path / "one.extxyz", *keys)


def test_a_fit_leaves_no_table_of_another(silica: Path, tmp_path: Path) -> None:
    quick = ("starts=1", "max_iterations=3", "screening_iterations=2", "-o", tmp_path / "eam")
    succeeds("fit-eam", silica, *quick)
    text = succeeds("fit-eam", silica, *quick, "form=fs")
    assert {path.name for path in (tmp_path / "eam").iterdir()} == {
        "eam.json",
        "eam.eam.fs",
        "eam.png",
        "convergence.png",
    }
    assert "alloy" not in text.split("written:")[1]
