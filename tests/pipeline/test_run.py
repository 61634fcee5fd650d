"""A whole small run, its interruption, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
import yaml
from ase.build import bulk, molecule
from tests.conftest import quartz
from tests.pipeline.tiny import TINY, config

from pretrain_mlip import EAM, PretrainedMLIP, files
from pretrain_mlip.config import RunConfig
from pretrain_mlip.dynamics import survival
from pretrain_mlip.dynamics.md import run_md
from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.parallel import Workers
from pretrain_mlip.pipeline import soundness
from pretrain_mlip.pipeline.folder import RunFolder
from pretrain_mlip.pipeline.run import resume_pipeline, run_pipeline
from pretrain_mlip.pipeline.strategies import train_strategies
from pretrain_mlip.potentials.checkpoint import read_checkpoint
from pretrain_mlip.report.results import Results
from pretrain_mlip.settings import read_settings, to_yaml
from pretrain_mlip.structures.datasets import load_dataset
from pretrain_mlip.structures.io import read_structures, set_labels, write_structures
from pretrain_mlip.validation.verification.verify import CHECKS

STRATEGIES = ("vanilla", "pretrain", "finetune", "delta")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_pipeline(config(tmp_path_factory.mktemp("runs") / "tiny"))


def test_leaves_what_is_promised(finished: Path) -> None:
    folder = RunFolder(finished)
    for path in (
        folder.config,
        folder.log,
        folder.eam,
        finished / "eam" / "eam.eam.alloy",
        finished / "eam" / "eam.png",
    ):
        assert path.stat().st_size > 100
    for name in STRATEGIES:
        for file in ("best.pt", "last.pt", "log.csv"):
            assert (folder.model(name) / file).stat().st_size > 100
        assert torch.load(folder.potential(name), weights_only=True)["format"] == "pretrain-mlip"
    page = (finished / "report.html").read_text()
    assert "data:image/png;base64," in page
    for outside in ("http://", "https://", " src=", 'src="figures'):
        assert outside not in page.replace("http://www.w3.org", "").replace('src="data:', "")
    assert not list(finished.rglob(".tmp-*"))
    assert len(read_structures(folder.pretraining("train"))) == 16  # eight parents and a copy of each


def test_results(finished: Path) -> None:
    results = Results.read(finished)
    everything = {"eam", *STRATEGIES}
    assert results.splits == {"train": 8, "val": 3, "test": 3}
    for section in (results.errors, results.parity, results.dimers, results.dimer_metrics, results.survival):
        assert section is not None
        assert set(section) == everything
    assert results.learning is not None
    # equal DFT gradient steps, and none in pretraining
    assert {name: entry.dft_steps[-1] for name, entry in results.learning.items()} == {
        "vanilla": 8,
        "finetune": 8,
        "delta": 8,
        "pretrain": 0,
    }
    assert results.rdf is not None
    assert results.rdf.reference is not None
    assert results.provenance is not None
    assert len(results.provenance.data) == 3
    assert results.config == yaml.safe_load((finished / "config.yaml").read_text())
    assert all(found.summary.replicas == 2 for found in (results.survival or {}).values())


def test_resolved_configuration_lists_every_default(finished: Path) -> None:
    content = yaml.safe_load((finished / "config.yaml").read_text())
    assert content["model"]["hyperparameters"]["readout_width"] == 64
    assert content["training"]["loss"]["huber_delta"] > 0
    assert read_settings(RunConfig, finished / "config.yaml") == RunConfig.model_validate(content)


def test_delta_is_the_eam_plus_a_network(finished: Path) -> None:
    folder = RunFolder(finished)
    calculator = PretrainedMLIP.load(folder.potential("delta"), device="cpu")
    eam, network = calculator.potential.potentials()  # type: ignore[attr-defined]
    assert isinstance(eam, EAM)
    atoms = read_structures(folder.data("test"))[0]
    energies = []
    for potential in (calculator.potential, eam, network):
        copy = atoms.copy()
        copy.calc = PretrainedMLIP(potential)
        energies.append(copy.get_potential_energy())
    assert energies[0] == pytest.approx(energies[1] + energies[2], abs=1e-4)  # the network is in float32


def weights(run: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {
        name: torch.load(run / "models" / name / "last.pt", weights_only=True)["training"]["network"]
        for name in STRATEGIES
    }


def assert_same_weights(one: Path, other: Path) -> None:
    ours, theirs = weights(one), weights(other)
    for name in STRATEGIES:
        for key, value in ours[name].items():
            assert (value == theirs[name][key]).all(), (name, key)


def test_finished_run_is_not_made_again_but_reported(finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*.pt")}
    first = Results.read(finished)
    (finished / "report.html").unlink()
    resume_pipeline(finished)
    assert (finished / "report.html").exists()
    again = Results.read(finished)
    assert again.provenance == first.provenance
    assert (again.timings or {})["training"] == pytest.approx((first.timings or {})["training"], abs=0.5)
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*.pt")} == before


def test_md_goes_on_with_the_replicas_that_are_left(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    content = json.loads((run / "results.json").read_text())
    before = content.pop("survival")
    (run / "results.json").write_text(json.dumps(content))
    (run / "replicas" / "survival" / "delta-001.json").unlink()
    made = []
    monkeypatch.setattr(survival, "run_md", lambda *args, **kwargs: made.append(args) or run_md(*args, **kwargs))
    resume_pipeline(run)
    assert len(made) == 1
    after = json.loads((run / "results.json").read_text())["survival"]
    assert after["vanilla"] == before["vanilla"]
    assert after["delta"]["summary"] == before["delta"]["summary"]


def test_moved_run_resumes_without_its_input(finished: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(finished, moved)
    shutil.rmtree(moved / "models" / "delta")
    resume_pipeline(moved)
    assert_same_weights(finished, moved)


def test_workers_train_the_same_networks(finished: Path, tmp_path: Path) -> None:
    parallel = run_pipeline(config(tmp_path / "two", workers=2, stability=None, squeeze=None, rdf=None))
    assert_same_weights(finished, parallel)


def test_graphs_on_disk_train_the_same_networks(
    finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Every set goes through a store; one of them is damaged before the run goes on."""
    run = tmp_path / "stored"
    shutil.copytree(finished, run, ignore=shutil.ignore_patterns("models"))
    stored = config(run, store_above=0.0)
    train_strategies(RunFolder(run), stored.model_copy(update={"strategies": ["vanilla", "pretrain"]}), Workers())
    assert {path.parent.name for path in run.glob("graphs/*/plan.json")} == {
        f"{labels}_{split}_minus_e0" for labels in ("dft", "eam") for split in ("train", "val")
    }
    shutil.rmtree(run / "models" / "pretrain")
    (run / "graphs" / "eam_train_minus_e0" / "00000.h5").write_bytes(b"damaged")
    train_strategies(RunFolder(run), stored, Workers())
    assert_same_weights(finished, run)
    # A training that is finished needs no graphs any more
    shutil.rmtree(run / "models" / "finetune")
    for part in run.glob("graphs/eam_*_minus_e0/*.h5"):
        part.unlink()
    train_strategies(RunFolder(run), stored, Workers())
    assert_same_weights(finished, run)
    assert "00000.h5: is cut off or damaged" in caplog.text
    assert (run / "graphs" / "dft_train_minus_eam" / "plan.json").exists()


def test_killed_at_any_moment(finished: Path, tmp_path: Path) -> None:
    """SIGKILL of a run with worker processes at several moments; resumed, it ends like an uninterrupted one."""
    run = tmp_path / "killed"
    (tmp_path / "config.yaml").write_text(to_yaml(config(run, workers=2, stability=None, squeeze=None, rdf=None)))
    start = [sys.executable, "-m", "pretrain_mlip", "run", str(tmp_path / "config.yaml")]
    resume = [sys.executable, "-m", "pretrain_mlip", "resume", str(run)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    moments = [run / "eam" / "eam.json", run / "models" / "pretrain" / "last.pt", run / "models" / "delta" / "last.pt"]
    killed = 0
    for command, moment in zip((start, resume, resume), moments, strict=True):
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while not moment.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        time.sleep(1.5)  # workers end with the run that started them
        stamp = {path: path.stat().st_mtime_ns for path in run.rglob("last.pt")}
        time.sleep(0.5)
        assert {path: path.stat().st_mtime_ns for path in run.rglob("last.pt")} == stamp
    assert killed == 3
    subprocess.run(resume, env=environment, check=True, stderr=subprocess.DEVNULL)
    assert_same_weights(finished, run)


LONG = TINY.replace("epochs: 4", "epochs: 60").replace("epochs: 3", "epochs: 60")


@pytest.fixture(scope="module")
def long_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained in this process, uninterrupted."""
    return run_pipeline(config(tmp_path_factory.mktemp("runs") / "long", LONG, stability=None, rdf=None), "training")


@pytest.mark.parametrize("receivers", ["the parent", "all"])
def test_asked_to_stop_workers_write_their_states(long_run: Path, tmp_path: Path, receivers: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(long_run, run, ignore=shutil.ignore_patterns("models", "config.yaml"))
    changes = {"output": str(run), "workers": 2}
    (run / "config.yaml").write_text(to_yaml(RunFolder(long_run).read_config().model_copy(update=changes)))
    command = [sys.executable, "-m", "pretrain_mlip", "train", str(run / "config.yaml")]
    for strategy in ("vanilla", "delta"):  # trained beside pretrain and finetune
        log = run / "models" / strategy / "log.csv"
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 240
        while not (log.exists() and len(log.read_text().splitlines()) > 5):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        children = psutil.Process(process.pid).children(recursive=True)
        for child in children if receivers == "all" else ():
            child.terminate()
        process.terminate()
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 130
        assert errors.count("interrupted; 'pretrain-mlip resume") == 1
        assert f"models/{strategy}: stopped in epoch " in errors
        assert "Traceback" not in errors
        assert not psutil.wait_procs(children, timeout=240)[1]
        state = read_checkpoint(run / "models" / strategy / "last.pt")["training"]
        assert not state["finished"]
    subprocess.run(command, check=True, capture_output=True, timeout=240)
    assert_same_weights(long_run, run)


def test_refuses_another_configuration_in_the_same_folder(finished: Path) -> None:
    with pytest.raises(InputError, match=r"training\.epochs was 4, is 5"):
        run_pipeline(config(finished, TINY.replace("epochs: 4", "epochs: 5")))


def test_md_settings_may_be_corrected_until_they_are_used(tmp_path: Path) -> None:
    run = tmp_path / "run"
    plain = {"strategies": ["vanilla"], "rdf": None}
    run_pipeline(config(run, **plain), until="training")
    longer = {"replicas": 3, "md": {"duration_ps": 0.02}}
    run_pipeline(config(run, **plain, stability=longer))
    results = Results.read(run)
    assert {found.summary.replicas for found in (results.survival or {}).values()} == {3}
    assert (results.config or {})["stability"]["replicas"] == 3
    assert read_settings(RunConfig, run / "config.yaml").stability == config(run, stability=longer).stability
    with pytest.raises(InputError, match=r"stability\.replicas was 3, is 2"):
        run_pipeline(config(run, **plain))


def test_verification_and_phonons_can_be_asked_for_later(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.pt")}
    quartz().write(tmp_path / "quartz.cif")
    some = ("species-supported-as-stated", "checkpoint-round-trip", "thread-safe")
    monkeypatch.setattr(soundness, "CHECKS", tuple(check for check in CHECKS if check.name in some))
    wanted = {"verification": {}, "phonons": {"structures": str(tmp_path / "quartz.cif"), "length": 5.0}}
    run_pipeline(config(run, workers=2, **wanted))
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*.pt")} == before
    results = Results.read(run)
    assert set(results.verification or {}) == {"eam", *STRATEGIES}
    for checks in (results.verification or {}).values():
        assert {name: row.grade for name, row in checks.items()} == dict.fromkeys(some[:2], "P")
    assert list(results.phonons or {}) == ["quartz"]
    found = (results.phonons or {})["quartz"]
    assert set(found) == {"eam", *STRATEGIES}
    for entry in found.values():  # an almost untrained network may have no crystal
        assert bool(entry.bands) != bool(entry.failed)
        assert not entry.bands or (entry.acoustic_at_gamma or 0.0) < 0.05
    page = (run / "report.html").read_text()
    assert "Verification" in page
    assert "quartz" in page
    # Elsewhere, without the file; other settings make that alone again which depends on them
    (tmp_path / "quartz.cif").unlink()
    moved = run.rename(tmp_path / "moved")
    made = []
    monkeypatch.setattr(soundness, "verify", lambda *args: made.append(args) or {})
    resume_pipeline(moved)
    run_pipeline(config(moved, workers=1, **wanted | {"phonons": wanted["phonons"] | {"length": 4.0}}))
    assert not made
    assert (Results.read(moved).config or {})["phonons"]["length"] == 4.0
    bands = []
    monkeypatch.setattr(soundness, "phonon_bands", lambda *args: bands.append(args) or {})
    both = {"verification": {"thorough": True}, "phonons": wanted["phonons"] | {"length": 3.5}}
    run_pipeline(config(moved, workers=1, **both))
    run_pipeline(config(moved, workers=1, **both))
    assert (len(made), len(bands)) == (5, 1)
    assert [checks for _, checks in made] == [list(some)] * 5


def test_a_worker_that_dies_says_nothing_about_a_potential(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def die(*_: object) -> None:
        raise MemoryError

    run = tmp_path / "run"
    shutil.copytree(finished, run)
    monkeypatch.setattr(soundness, "CHECKS", ())
    monkeypatch.setattr(soundness, "_computed", lambda *_: die())
    with pytest.raises(MemoryError):
        run_pipeline(config(run, verification={}))
    dead = [(SimpleNamespace(name="eam"), ComputationError("the worker process died"))]
    monkeypatch.undo()
    monkeypatch.setattr(Workers, "run", lambda *_: iter(dead))
    run_pipeline(config(run, workers=2, verification={}))
    assert "verification of eam: the worker process died; the report goes without" in caplog.text
    assert Results.read(run).verification is None


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["salt.cif"], "holds Cl, Na"),
        (["molecule.xyz"], "periodic"),
        (["missing.cif"], "no such file"),
        (["quartz.cif", "quartz.xyz"], "two files are called quartz"),
    ],
)
def test_wrong_crystals_are_refused_before_anything_is_computed(tmp_path: Path, names: list[str], message: str) -> None:
    bulk("NaCl", "rocksalt", a=5.6).write(tmp_path / "salt.cif")
    molecule("H2O").write(tmp_path / "molecule.xyz")
    quartz().write(tmp_path / "quartz.cif")
    quartz().write(tmp_path / "quartz.xyz")
    with pytest.raises(InputError, match=message):
        run_pipeline(config(tmp_path / "run", phonons=[str(tmp_path / name) for name in names]))
    assert not RunFolder(tmp_path / "run").eam.exists()


def test_one_process_at_a_time(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PATIENCE", 0.1)
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    holder = """
import sys, time
from pretrain_mlip.files import locked
with locked(sys.argv[1]):
    print(1, flush=True)
    time.sleep(100)
"""
    other = subprocess.Popen([sys.executable, "-c", holder, str(run)], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        other.stdout.readline()
        before = (run / "config.yaml").read_text()
        with pytest.raises(InputError, match="another process is at work in this folder"):
            run_pipeline(config(run, verification={}))
        assert (run / "config.yaml").read_text() == before
    finally:
        other.kill()
        other.wait()
    resume_pipeline(run)  # however the other ended


def test_an_interrupted_run_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pretrain_mlip.pipeline.preparation.prepare_data", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_pipeline(config(tmp_path / "run"))
    assert f"pretrain-mlip resume {tmp_path / 'run'}" in caplog.text


def test_what_md_would_refuse_is_refused_before_training(tmp_path: Path) -> None:
    frames = load_dataset("silica_mini")[:14]
    for atoms in frames:
        results = {name: atoms.calc.results[name] for name in ("energy", "forces")}
        atoms.pbc, atoms.cell = False, None
        set_labels(atoms, results["energy"], results["forces"])
    write_structures(tmp_path / "clusters.extxyz", frames)
    squeeze = {"md": {"duration_ps": 0.03, "volume_factor": 0.5}}
    with pytest.raises(InputError, match="three-dimensional cell"):
        run_pipeline(config(tmp_path / "run", data=str(tmp_path / "clusters.extxyz"), stability=squeeze))
    assert not (tmp_path / "run" / "eam").exists()


def test_refuses_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run to go on with"):
        resume_pipeline(tmp_path)


def test_a_run_without_md(tmp_path: Path) -> None:
    run = run_pipeline(config(tmp_path / "short", strategies=["vanilla"], stability=None, squeeze=None, rdf=None))
    results = Results.read(run)
    assert results.survival is None
    assert set(results.errors or {}) == {"eam", "vanilla"}
    assert (run / "report.html").exists()


def test_own_data_with_odd_labels(tmp_path: Path) -> None:
    """Files of one's own: labels under other names, no stress, one file given by its name alone."""
    frames = []
    for atoms in load_dataset("silica_mini")[:14]:
        results = atoms.calc.results
        bare = atoms.copy()
        bare.info = {"dft": results["energy"]}
        bare.arrays["f_dft"] = results["forces"]
        frames.append(bare)
    from ase.io import write

    write(tmp_path / "mine.extxyz", frames)
    text = TINY.replace(
        "data: {source: silica_mini, split: {n_train: 8, n_val: 3, n_test: 3}}",
        f"data: {{source: {tmp_path / 'mine.extxyz'}, keys: {{energy_key: dft, forces_key: f_dft}}}}",
    )
    run = run_pipeline(config(tmp_path / "own", text, strategies=["delta"], stability=None, squeeze=None, rdf=None))
    errors = json.loads((run / "results.json").read_text())["errors"]["delta"]["all"]
    assert errors["forces_mae"] > 0
    assert errors.get("stress_mae") is None


def test_a_refused_start_can_be_corrected_in_the_same_folder(tmp_path: Path) -> None:
    text = TINY.replace("source: silica_mini", f"source: {tmp_path / 'absent.extxyz'}")
    with pytest.raises(InputError, match="absent"):
        run_pipeline(config(tmp_path / "run", text, strategies=["vanilla"]), until="training")
    run_pipeline(config(tmp_path / "run", strategies=["vanilla"]), until="training")
    assert RunFolder(tmp_path / "run").potential("vanilla").exists()


def test_a_device_that_is_not_there_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not available"):
        run_pipeline(config(tmp_path / "run", device="cuda:99"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [({"config_type": "gas"}, "there are cristobalite"), ({"equilibration_ps": 9.0}, "leaves nothing")],
)
def test_a_wrong_rdf_is_refused_before_anything_is_computed(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run_pipeline(config(tmp_path / "run", rdf=change))
    assert not RunFolder(tmp_path / "run").eam.exists()


def test_an_ensemble_of_every_strategy_acts_as_one(tmp_path: Path) -> None:
    plain = {"strategies": ["finetune"], "stability": None, "squeeze": None, "rdf": None}
    run = run_pipeline(config(tmp_path / "three", ensemble=3, **plain))
    folder = RunFolder(run)
    atoms = read_structures(folder.data("test"))[0]
    energies = []
    for member in range(3):
        atoms.calc = PretrainedMLIP.load(folder.training("finetune", member, 3) / "best.pt", device="cpu")
        energies.append(atoms.get_potential_energy())
    together = PretrainedMLIP.load(folder.potential("finetune"), device="cpu")
    atoms.calc = together
    # float32 networks, energies of thousands of eV kept in float64
    assert atoms.get_potential_energy() == pytest.approx(np.mean(energies), abs=1e-4)
    assert together.get_property("energy_std", atoms) == pytest.approx(np.std(energies, ddof=1), rel=1e-3)
    assert len(set(energies)) == 3
    # Members of finetune start from their own members of pretrain, and one that is lost is trained again
    last = folder.training("finetune", 2, 3) / "last.pt"
    before = read_checkpoint(last)["training"]["network"]
    shutil.rmtree(folder.model("finetune"))
    run_pipeline(config(tmp_path / "three", ensemble=3, **plain))
    after = read_checkpoint(last)["training"]["network"]
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert set(Results.read(run).errors or {}) == {"eam", "pretrain", "finetune"}
