"""Bad input: one line on standard error, exit status 2, nothing half-written."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import write
from tests.cli.running import fails, run, succeeds

from pretrain_mlip.structures.datasets import load_dataset
from pretrain_mlip.structures.io import set_labels, write_structures


def test_options_that_make_no_sense(silica: Path, eam: Path) -> None:
    assert "r_max" in fails("rdf", silica, "--r-max", "-1")
    assert "r_max" in fails("rdf", silica, "--r-max", "nan")
    assert "bins" in fails("rdf", silica, "--bins", "0")
    assert "p.txt" in fails("perturb", silica, "-o", "p.txt")
    assert "md.traj.gz" in fails("md", eam, silica, "-o", "md.traj.gz")
    assert "'foo'" in fails("evaluate", eam, silica, "--by", "foo")


def bad_file(folder: Path, kind: str) -> Path:
    path = folder / f"{kind}.extxyz"
    frames = [atoms.copy() for atoms in load_dataset("silica_mini")[:12]]
    rng = np.random.default_rng(0)
    if kind != "unlabelled":
        for atoms in frames:
            set_labels(atoms, -1.0, rng.normal(size=(len(atoms), 3)))
    if kind == "nan":
        forces = np.zeros((24, 3))
        forces[5, 1] = np.nan
        set_labels(frames[3], -1.0, forces)
    write(path, frames)
    if kind == "empty":
        path.write_text("")
    if kind == "truncated":
        path = folder / "truncated.extxyz.gz"
        whole = gzip.compress((folder / "truncated.extxyz").read_bytes())
        path.write_bytes(whole[: len(whole) // 2])
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("unlabelled", ("unlabelled.extxyz", "frame 0", "energy")),
        ("nan", ("nan.extxyz", "frame 3", "forces")),
        ("empty", ("empty.extxyz", "empty")),
        ("truncated", ("truncated.extxyz.gz",)),
    ],
)
@pytest.mark.parametrize("command", ["fit-eam", "run"])
def test_bad_data(kind: str, words: tuple[str, ...], command: str, tmp_path: Path) -> None:
    path, out = bad_file(tmp_path, kind), tmp_path / "out"
    if command == "fit-eam":
        message = fails("fit-eam", path, "-o", out)
    else:
        message = fails("run", f"data.source={path}", f"output={out}")
    for word in words:
        assert word in message
    begun = ("config.yaml", ".settings.yaml", "log.txt")
    assert not [file for file in out.rglob("*") if file.is_file() and file.name not in begun]


def test_missing_files(tmp_path: Path, eam: Path) -> None:
    assert "absent.extxyz" in fails("fit-eam", tmp_path / "absent.extxyz")
    assert "absent.yaml" in fails("run", tmp_path / "absent.yaml")
    assert "absent.pt" in fails("scan", tmp_path / "absent.pt")
    assert "give either a POTENTIAL or --calculator" in fails("scan")
    assert "absent.extxyz" in fails("md", eam, tmp_path / "absent.extxyz")


def test_unknown_configuration_key(tmp_path: Path) -> None:
    message = fails("run", f"output={tmp_path / 'out'}", "training.epoch=3")
    assert "training.epoch" in message
    assert "did you mean 'epochs'" in message
    assert "did you mean 'width'" in fails("run", f"output={tmp_path / 'out'}", "model.hyperparameters.widht=3")
    assert "available: cgcnn" in fails("run", f"output={tmp_path / 'out'}", "model.name=cgnn")
    assert "did you mean 'cutoff'" in fails("fit-eam", "silica_mini", "-o", tmp_path / "out", "cutof=5")
    assert not (tmp_path / "out").exists()


def test_element_in_the_test_set_alone(tmp_path: Path) -> None:
    frames = load_dataset("silica_mini")[:12]
    for number, atoms in enumerate(frames):
        atoms.info["split"] = "test" if number == 11 else "val" if number == 10 else "train"
    frames[11].symbols[0] = "Ge"
    set_labels(frames[11], -1.0, np.zeros((24, 3)))
    write_structures(tmp_path / "ge.extxyz", frames)
    message = fails("run", f"data.source={tmp_path / 'ge.extxyz'}", f"output={tmp_path / 'out'}")
    assert "Ge" in message
    assert "test" in message


def test_output_that_cannot_be_written(silica: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for message in (
        fails("run", f"output={tmp_path / 'file' / 'run'}"),
        fails("fit-eam", silica, "-o", tmp_path / "file", "starts=1", "max_iterations=2", "screening_iterations=2"),
        fails("datasets", "get", "silica_mini", "-o", tmp_path / "file"),
        fails("perturb", silica, "-o", tmp_path / "file" / "p.extxyz", "rounds=1", "copies=1"),
    ):
        assert "choose another output folder" in message


def test_checkpoints_that_are_not_ours(tmp_path: Path, silica: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "theirs.pt")
    assert "not a checkpoint of pretrain-mlip" in fails("evaluate", tmp_path / "theirs.pt", silica)
    (tmp_path / "text.pt").write_text("x")
    assert "text.pt" in fails("md", tmp_path / "text.pt", silica)
    (tmp_path / "eam.json").write_text("{}")
    assert "eam.json" in fails("export", tmp_path / "eam.json", "-o", tmp_path / "x.eam.alloy")


def test_other_mistakes(tmp_path: Path, eam: Path, network: Path, silica: Path) -> None:
    write(tmp_path / "fe.extxyz", Atoms("Fe2", positions=[[0, 0, 0], [2, 0, 0]]))
    assert "Fe" in fails("label", tmp_path / "fe.extxyz", "--potential", eam, "-o", tmp_path / "l.extxyz")
    assert not (tmp_path / "l.extxyz").exists()
    assert "for format pt2" in fails("export", eam, "-o", tmp_path / "x.eam.alloy", "--threads", 2)
    assert "for code" in fails("export", eam, "-o", tmp_path / "x.eam.alloy", "--dtype", "float32")
    assert "belong to --format setfl" in fails(
        "export", network, "--format", "torchscript", "-o", tmp_path / "x.ts.pt", "--points-r", 500
    )
    code = tmp_path / "network.ts.pt"
    assert "types in the order" in succeeds("export", network, "--format", "torchscript", "-o", code)
    assert "energy" in succeeds("evaluate", code, silica)
    assert "only an EAM" in fails("export", network, "-o", tmp_path / "x.eam.alloy")
    assert "form 'alloy'" in fails("export", eam, "-o", tmp_path / "x.eam.fs")
    assert "no structure 99" in fails("md", eam, silica, "--index", "99")
    assert "key=value" in fails("fit-eam", silica, "cutoff")
    assert "no run" in fails("resume", tmp_path)
    assert "results.json" in fails("report", tmp_path)
    assert run("nonsense").returncode == 2
    assert run("run", "--nonsense").returncode == 2
