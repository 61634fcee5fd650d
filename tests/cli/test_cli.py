"""Every command as its user runs it: output, exit status, messages."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111
from ase.io import read, write
from tests.conftest import ELEMENTS, hard_eam, quartz
from typer.main import get_command

from pretrain_mlip.cli.main import app, main
from pretrain_mlip.potentials.base import ReferenceEnergies, SumPotential
from pretrain_mlip.potentials.checkpoint import save_potential
from pretrain_mlip.potentials.networks import build_model
from pretrain_mlip.structures.datasets import load_dataset
from pretrain_mlip.structures.io import set_labels, write_structures


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def run(*arguments: object) -> Done:
    """The command in this process: what ``main`` prints, and the status that it ends with."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setenv("COLUMNS", "200")
        patch.setattr(sys, "argv", ["pretrain-mlip", *map(str, arguments)])
        try:
            main()
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
    return Done(status, out.getvalue(), err.getvalue())


def succeeds(*arguments: object) -> str:
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fails(*arguments: object, status: int = 2) -> str:
    """The one-line message of a command that ends with this status."""
    done = run(*arguments)
    assert done.returncode == status, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.fixture
def eam(tmp_path: Path) -> Path:
    hard_eam().save(tmp_path / "eam.json")
    return tmp_path / "eam.json"


@pytest.fixture
def network(tmp_path: Path) -> Path:
    model = build_model("cgcnn", ELEMENTS, width=8, convolutions=1)
    save_potential(tmp_path / "net.pt", SumPotential([ReferenceEnergies({"O": -430.0, "Si": -105.0}), model]))
    return tmp_path / "net.pt"


@pytest.fixture
def silica(tmp_path: Path) -> Path:
    write_structures(tmp_path / "silica.extxyz", load_dataset("silica_mini")[:12])
    return tmp_path / "silica.extxyz"


def test_as_a_program() -> None:
    """``python -m pretrain_mlip`` in a process of its own: the status reaches the shell, errors are one line."""
    start = [sys.executable, "-m", "pretrain_mlip"]
    done = subprocess.run([*start, "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()[0]) == (0, "pretrain-mlip")
    done = subprocess.run([*start, "scan", "absent.pt"], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr == "error: absent.pt: no such file\n"


def test_help_of_every_command_has_an_example() -> None:
    def commands(group, path=()):
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from commands(command, (*path, name))
            else:
                yield (*path, name), command

    found = list(commands(get_command(app)))
    assert {path[0] for path, _ in found} >= {
        "run",
        "fit-eam",
        "perturb",
        "label",
        "train",
        "resume",
        "evaluate",
        "md",
        "scan",
        "rdf",
        "datasets",
        "report",
        "export",
    }
    for path, command in found:
        assert f"Example: pretrain-mlip {' '.join(path)}" in (command.help or ""), path
        for parameter in command.params:
            assert getattr(parameter, "help", "x"), (path, parameter.name)


def test_help_is_fast_and_free_of_torch() -> None:
    code = "import sys, pretrain_mlip.cli.main; print('torch' in sys.modules, 'matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
    assert "pretrain-mlip 0." in succeeds("--version")


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


def test_options_that_make_no_sense(silica: Path, eam: Path) -> None:
    assert "r_max" in fails("rdf", silica, "--r-max", "-1")
    assert "r_max" in fails("rdf", silica, "--r-max", "nan")
    assert "bins" in fails("rdf", silica, "--bins", "0")
    assert "p.txt" in fails("perturb", silica, "-o", "p.txt")
    assert "md.traj.gz" in fails("md", eam, silica, "-o", "md.traj.gz")
    assert "'foo'" in fails("evaluate", eam, silica, "--by", "foo")


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


def test_datasets(tmp_path: Path) -> None:
    text = succeeds("datasets", "list")
    for name in ("silica_mini", "phosphorus_mini", "P-GAP-20", "SiO2-GAP-22"):
        assert name in text
    assert "CP2K" in succeeds("datasets", "info", "phosphorus_mini")
    succeeds("datasets", "get", "silica_mini", "-o", tmp_path)
    assert len(read(tmp_path / "silica_mini.extxyz", ":")) == len(load_dataset("silica_mini"))


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


# Bad input: one line on standard error, exit status 2, nothing half-written


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
    assert not [file for file in out.rglob("*") if file.is_file() and file.name not in ("config.yaml", "log.txt")]


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
