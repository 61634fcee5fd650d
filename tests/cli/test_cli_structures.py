"""``datasets``, ``perturb`` and ``label`` as their users run them."""

from __future__ import annotations

from pathlib import Path

import pytest
from ase.io import read
from tests.cli.running import succeeds
from tests.conftest import hard_eam

from pretrain_mlip.structures.datasets import load_dataset


def test_datasets(tmp_path: Path) -> None:
    text = succeeds("datasets", "list")
    for name in ("silica_mini", "phosphorus_mini", "P-GAP-20", "SiO2-GAP-22"):
        assert name in text
    assert "CP2K" in succeeds("datasets", "info", "phosphorus_mini")
    succeeds("datasets", "get", "silica_mini", "-o", tmp_path)
    assert len(read(tmp_path / "silica_mini.extxyz", ":")) == len(load_dataset("silica_mini"))


def test_perturb_and_label(silica: Path, eam: Path, tmp_path: Path) -> None:
    succeeds("perturb", silica, "-o", tmp_path / "p.extxyz", "rounds=1", "copies=1", "max_force=null")
    frames = read(tmp_path / "p.extxyz", ":")
    assert len(frames) == 12
    assert all(atoms.info["parent"] for atoms in frames)
    assert all(atoms.calc is None for atoms in frames)
    succeeds("label", tmp_path / "p.extxyz", "--potential", eam, "-o", tmp_path / "l.extxyz")
    labelled = read(tmp_path / "l.extxyz", ":")
    calculator = hard_eam().calculator()
    for atoms in labelled[:3]:
        energy = atoms.get_potential_energy()
        atoms.calc = calculator
        assert energy == pytest.approx(
            atoms.get_potential_energy(), abs=1e-4
        )  # positions in the file have eight decimals


def test_perturb_tells_the_distances_of_every_pair(silica: Path, eam: Path, tmp_path: Path) -> None:
    arguments = ("perturb", silica, "-o", tmp_path / "p.extxyz", "--potential", eam, "rounds=1", "copies=1")
    bins = {}
    for dimers in (0, 1):
        lines = succeeds(*arguments, f"dimers={dimers}").splitlines()
        rows = [line.replace("│", " ").split() for line in lines if "│" in line]
        assert [row[0] for row in rows] == ["O-O", "O-Si", "Si-Si"]
        bins[dimers] = [" ".join(row[-3:]) for row in rows]
    assert bins[1] == ["55 of 55"] * 3  # to the cutoff of this EAM, 6 Å
    assert not set(bins[0]) & set(bins[1])
