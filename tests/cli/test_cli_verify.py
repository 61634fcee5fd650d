"""``verify`` as its user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ase.build import bulk
from tests.cli.running import fails, run, succeeds
from tests.conftest import hard_eam

from pretrain_mlip.potentials.checkpoint import save_potential

EMT = ("--calculator", "ase.calculators.emt:EMT")
DERIVATIVES = ("--check", "forces-numerical-derivative", "--check", "stress-numerical-derivative")


def test_a_file_of_ours(tmp_path: Path) -> None:
    save_potential(tmp_path / "model.pt", hard_eam())
    out = succeeds("verify", tmp_path / "model.pt", *DERIVATIVES, "-o", tmp_path / "v.json", "--device", "cpu")
    assert "verification of" in out
    content = json.loads((tmp_path / "v.json").read_text())
    assert content["elements"] == list(hard_eam().elements)
    assert {row["grade"] for row in content["checks"].values()} == {"A"}


def test_any_calculator(tmp_path: Path) -> None:
    bulk("Cu", cubic=True).write(tmp_path / "cu.cif")
    out = succeeds(
        "verify",
        *EMT,
        "--elements",
        "Cu, Au",
        *DERIVATIVES,
        "--structure",
        tmp_path / "cu.cif",
        "-o",
        tmp_path / "v.json",
    )
    assert "forces-numerical-derivative" in out


def test_a_failed_check_is_exit_status_1(tmp_path: Path) -> None:
    done = run(
        "verify", *EMT, "--elements", "Cu,Fe", "--check", "species-supported-as-stated", "-o", tmp_path / "v.json"
    )
    assert done.returncode == 1
    assert "Fe: NotImplementedError" in done.stdout
    assert json.loads((tmp_path / "v.json").read_text())["checks"]["species-supported-as-stated"]["grade"] == "F"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give either a POTENTIAL or --calculator"),
        (("model.pt", *EMT), "give either a POTENTIAL or --calculator"),
        (EMT, "--calculator needs --elements"),
        (("absent.pt",), "absent.pt"),
        ((*EMT, "--elements", "Cu", "--check", "foces"), "no check 'foces'"),
        ((*EMT, "--elements", "Cu", "--dtype", "half"), "dtype 'half'"),
    ],
)
def test_bad_input(arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in fails("verify", *arguments)
    assert not (tmp_path / "verification.json").exists()
