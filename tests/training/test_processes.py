"""Several processes that share a training: they take the steps of one, and end together."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml
from tests.pipeline.test_run import TINY, config
from tests.training.small import E0, SETTINGS, SMALL, graphs

from pretrain_mlip import keys
from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.pipeline.folder import RunFolder
from pretrain_mlip.pipeline.run import run_pipeline
from pretrain_mlip.potentials.checkpoint import read_checkpoint
from pretrain_mlip.settings import to_yaml
from pretrain_mlip.training.loop import Training
from pretrain_mlip.training.processes import Place, check_devices, joined, run_together
from pretrain_mlip.training.settings import TrainingSettings
from pretrain_mlip.training.stages import freeze_parts
from pretrain_mlip.training.state import TrainingFolder, is_finished

DOUBLE = SETTINGS.model_copy(update={"dtype": "float64", "epochs": 3})
M3GNET = {"width": 8, "edge_width": 8, "hidden_width": 8, "blocks": 1, "cutoff": 3.5, "three_body_cutoff": 2.5}
TRANSFORMER = {"width": 8, "layers": 1, "heads": 2, "radial": 8, "cutoff": 3.5}
ROUNDING = 1e-10  # sums of two parts, in float64, after some ten steps whose sizes Adam normalises


def unlabelled() -> list:
    """Structures of which some have no stress, some no energy, and one nothing but forces."""
    found = graphs(0, 8)
    for number in (0, 3, 4):
        found[number][keys.STRESS] = torch.full_like(found[number][keys.STRESS], torch.nan)
    for number in (2, 4):
        found[number][keys.ENERGY] = torch.full_like(found[number][keys.ENERGY], torch.nan)
    return found


# What is changed: settings, and arguments of ``case``
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "last batch of two": ({"batch_size": 3}, {}),
    "batches of one structure": ({"batch_size": 1}, {}),
    "last batch of one, other kinds of costs": ({"batch_size": 7, "loss": {"kind": "l2"}}, {}),
    "sharpness-aware": ({"sam_rho": 0.5}, {}),
    "replay": ({}, {"replay": 1}),
    "labels missing": ({"batch_size": 3}, {"structures": unlabelled}),
    "batches bounded by edges": ({"batch_size": 5, "max_edges": 1500}, {}),
    "weights that the loss does not reach": ({"loss": {"energy": 0.0, "stress": 0.0}}, {}),
    "frozen parts": ({}, {"freeze": ["embedding"]}),
    "plateau, one structure to validate": ({"schedule": "plateau", "plateau_patience": 0}, {"validation": 1}),
    "m3gnet": ({}, {"model": "m3gnet", "hyperparameters": M3GNET}),
    "transformer": ({"epochs": 1}, {"model": "torchmd_net", "hyperparameters": TRANSFORMER}),
}


def case(name: str, folder: Path, fabric: Any = None) -> None:
    changes, data = CASES[name]
    settings = TrainingSettings.model_validate(DOUBLE.model_dump() | changes)
    network = build(data)
    network.set_scales(5.0, 15.0)
    freeze_parts(network, data.get("freeze", []))
    train = data.get("structures", lambda: graphs(0, 8))()
    Training(
        *(network, train, graphs(8, 11)[: data.get("validation", 3)], settings, folder / name),
        fabric=fabric,
        replayed=graphs(11, 14) if "replay" in data else (),
        replay_size=data.get("replay", 0),
    ).run()


def build(data: dict[str, Any]):
    from pretrain_mlip.potentials.networks import build_model

    network = build_model(data.get("model", "cgcnn"), E0.elements, seed=1, **data.get("hyperparameters", SMALL))
    network.set_dtype(torch.float64)
    return network


def all_cases(folder: Path) -> None:
    fabric = joined("cpu")
    if fabric.global_rank > 0:
        Path.write_bytes = Path.write_text = torch.save = _refuse  # type: ignore[assignment,method-assign]
    for name in CASES:
        case(name, folder, fabric)


def _refuse(*_: object, **__: object) -> None:
    raise AssertionError("only the first process writes")


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    run_together(all_cases, (folder,), 2)
    return folder


def assert_close(one: Path, other: Path, tolerance: float) -> None:
    """Equal weights, averaged weights and histories; bit by bit where the tolerance is zero."""
    ours, theirs = (read_checkpoint(folder / "last.pt")["training"] for folder in (one, other))
    assert ours["finished"] is theirs["finished"] is True
    for part in ("network", "average"):
        for key, value in ours[part].items():
            assert torch.allclose(value, theirs[part][key], rtol=tolerance, atol=tolerance), (part, key)
    for row, expected in zip(ours["history"], theirs["history"], strict=True):
        assert row.keys() == expected.keys()
        for key in row.keys() - {"seconds"}:
            assert row[key] == pytest.approx(expected[key], rel=tolerance, abs=0.0), key
    assert ours["best_epoch"] == theirs["best_epoch"]


@pytest.mark.parametrize("name", list(CASES))
def test_two_processes_take_the_steps_of_one(name: str, by_two: Path, tmp_path: Path) -> None:
    case(name, tmp_path)
    assert_close(by_two / name, tmp_path / name, ROUNDING)
    before = read_checkpoint(tmp_path / name / "last.pt")["training"]["network"]
    fresh = build(CASES[name][1]).state_dict()
    assert any(not torch.equal(value, before[key]) for key, value in fresh.items())


def fails(where: Path) -> None:
    rank = joined("cpu").global_rank
    (where / f"{rank}").write_text("begun")
    if rank == 1:
        raise InputError("refused by the second")
    joined("cpu").barrier()


def test_the_error_that_says_most_is_raised(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="refused by the second"):
        run_together(fails, (tmp_path,), 3)
    assert len(list(tmp_path.iterdir())) == 3


def infinite(folder: Path) -> None:
    data = graphs(0, 4)
    data[1][keys.FORCES] = data[1][keys.FORCES] * float("inf")
    data[2][keys.FORCES] = data[2][keys.FORCES] * float("inf")
    settings = DOUBLE.model_copy(update={"batch_size": 4, "epochs": 30})
    Training(build({}), data, graphs(8, 9), settings, folder, fabric=joined("cpu")).run()


def test_structures_at_fault_are_named_whoever_had_them(tmp_path: Path) -> None:
    names = [graphs(number, number + 1)[0][keys.STRUCTURE_ID] for number in (1, 2)]
    with pytest.raises(ComputationError, match="not finite in 21 steps") as error:
        run_together(infinite, (tmp_path,), 2)
    assert all(name in str(error.value) for name in names)


# Whole runs

LONG = TINY.replace("training: {epochs: 4, batch_size: 4}", "training: {epochs: 80, batch_size: 3, dtype: float64}")
PLAIN: dict[str, Any] = {"strategies": ["vanilla"], "stability": None, "rdf": None, "verification": None}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
COMMAND = [sys.executable, "-m", "pretrain_mlip"]
MOST = 240.0  # seconds until a test gives up; nothing is expected to take nearly as long


@pytest.fixture(scope="module")
def by_one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training by one process, uninterrupted."""
    return run_pipeline(config(tmp_path_factory.mktemp("runs") / "one", LONG, **PLAIN), until="training")


@pytest.fixture(scope="module")
def together(by_one: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same by two, uninterrupted."""
    run = prepared(by_one, tmp_path_factory.mktemp("runs"))
    run_pipeline(RunFolder(run).read_config(), until="training")
    return run


def prepared(source: Path, folder: Path, devices: int = 2) -> Path:
    """A run that is ready to be trained."""
    run = folder / "run"
    for name in ("data", "eam"):
        for file in (source / name).iterdir():
            (run / name).mkdir(parents=True, exist_ok=True)
            (run / name / file.name).write_bytes(file.read_bytes())
    settings = config(run, LONG, **PLAIN, devices=devices)
    content = to_yaml(RunFolder(source).read_config().model_copy(update={"output": str(run), "devices": devices}))
    assert settings.devices == devices
    (run / "config.yaml").write_text(content)
    return run


def vanilla(run: Path) -> Path:
    return RunFolder(run).model("vanilla")


def until(condition: Callable[[], object], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + MOST
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def started(arguments: list[str], run: Path, epochs: int = 5) -> Iterator[subprocess.Popen]:
    """A command, once its training has reached an epoch."""
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    log = vanilla(run) / "log.csv"
    try:
        until(lambda: log.exists() and len(log.read_text().splitlines()) > epochs, process)
        yield process
    finally:
        process.kill()
        process.wait()


def members(process: subprocess.Popen) -> dict[int, psutil.Process]:
    """Processes of a training by their rank."""
    found = {}
    for child in psutil.Process(process.pid).children(recursive=True):
        rank = child.environ().get("RANK")
        if rank is not None and "resource_tracker" not in " ".join(child.cmdline()):
            found[int(rank)] = child
    return found


def all_gone(found: dict[int, psutil.Process]) -> bool:
    return not psutil.wait_procs(list(found.values()), timeout=MOST)[1]


def assert_stopped_and_resumable(run: Path, done: Path, resume: list[str]) -> None:
    """A state was written after the last whole epoch, once, and leads to the very weights of an uninterrupted run."""
    found = TrainingFolder(vanilla(run)).read_last()
    assert found is not None
    assert not found[1]["finished"]
    assert not list(vanilla(run).glob(".tmp-*"))
    subprocess.run(resume, check=True, capture_output=True, timeout=MOST)
    assert_close(vanilla(run), vanilla(done), 0.0)


def test_a_run_by_two_is_that_of_one(by_one: Path, together: Path) -> None:
    # 240 steps of Adam, whose sizes do not depend on those of gradients, make more of rounding than a few do
    assert_close(vanilla(together), vanilla(by_one), 1e-6)
    log = (together / "log.txt").read_text()
    assert log.count("vanilla: 80 epochs, best") == 1


def test_a_killed_process_ends_the_others_and_leaves_a_state_that_any_number_resumes(
    by_one: Path, tmp_path: Path
) -> None:
    run = prepared(by_one, tmp_path)
    with started([*COMMAND, "train", str(run / "config.yaml")], run) as process:
        found = members(process)
        assert set(found) == {0, 1}
        found[1].kill()
        _, errors = process.communicate(timeout=MOST)
        assert process.returncode == 1
        assert "error: process 1 of 2 died (exit status -9" in errors
        assert "Traceback" not in errors
        assert all_gone(found)
    assert not is_finished(vanilla(run))
    run_pipeline(RunFolder(run).read_config().model_copy(update={"devices": 1}), until="training")
    assert_close(vanilla(run), vanilla(by_one), 1e-6)


def test_a_run_begun_by_one_is_ended_by_two(by_one: Path, tmp_path: Path) -> None:
    run = prepared(by_one, tmp_path, devices=1)
    with started([*COMMAND, "train", str(run / "config.yaml")], run) as process:
        process.terminate()
        assert process.wait(MOST) == 130
    run_pipeline(RunFolder(run).read_config().model_copy(update={"devices": 2}), until="training")
    assert_close(vanilla(run), vanilla(by_one), 1e-6)


@pytest.mark.parametrize("receivers", ["the parent", "all"])
def test_asked_to_stop_it_writes_its_state(by_one: Path, together: Path, tmp_path: Path, receivers: str) -> None:
    run = prepared(by_one, tmp_path)
    command = [*COMMAND, "train", str(run / "config.yaml")]
    with started(command, run) as process:
        found = members(process)
        for child in found.values() if receivers == "all" else ():
            child.terminate()
        process.terminate()
        _, errors = process.communicate(timeout=MOST)
        assert process.returncode == 130
        assert errors.count("interrupted; 'pretrain-mlip resume") == 1
        assert errors.count(": stopped in epoch ") == 1  # and hence was written once
        assert all_gone(found)
    assert_stopped_and_resumable(run, together, command)


def test_a_killed_parent_takes_the_processes_with_it(by_one: Path, together: Path, tmp_path: Path) -> None:
    run = prepared(by_one, tmp_path)
    command = [*COMMAND, "train", str(run / "config.yaml")]
    with started(command, run) as process:
        found = members(process)
        process.kill()
        assert all_gone(found)
    assert_stopped_and_resumable(run, together, command)


def test_torchrun_stops_and_resumes(by_one: Path, together: Path, tmp_path: Path) -> None:
    run = prepared(by_one, tmp_path, devices=1)
    command = [*TORCHRUN, *COMMAND, "train", str(run / "config.yaml")]
    with started(command, run) as process:
        found = members(process)
        process.terminate()
        _, errors = process.communicate(timeout=MOST)
        assert process.returncode != 0
        assert errors.count(": stopped in epoch ") == 1
        assert all_gone(found)
    assert_stopped_and_resumable(run, together, command)


def test_torchrun_makes_a_whole_run(tmp_path: Path) -> None:
    content = yaml.safe_load(TINY) | {"output": str(tmp_path / "run"), "strategies": ["finetune"], "workers": 2}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    command = [*TORCHRUN, *COMMAND, "run", str(tmp_path / "tiny.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=MOST)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("report: ") == 1
    assert (tmp_path / "run" / "report.html").exists()
    for name in ("pretrain: 3 epochs", "finetune: 4 epochs"):
        assert done.stderr.count(name) == 1
        assert (tmp_path / "run" / "log.txt").read_text().count(name) == 1


def test_an_error_before_the_training_ends_all_processes(tmp_path: Path) -> None:
    content = yaml.safe_load(TINY) | {"output": str(tmp_path / "run"), "data": str(tmp_path / "absent.extxyz")}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    command = [*TORCHRUN, *COMMAND, "train", str(tmp_path / "tiny.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=MOST)
    assert done.returncode == 1  # of torchrun
    assert "absent.extxyz" in done.stderr
    assert "exitcode  : 2" in done.stderr


def test_places_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Place.of({}) is None
    assert Place.of({"WORLD_SIZE": "1", "RANK": "0"}) is None
    with pytest.raises(InputError, match="WORLD_SIZE=2, but not RANK, LOCAL_RANK"):
        Place.of({"WORLD_SIZE": "2"})
    with pytest.raises(InputError, match="not available"):
        check_devices("cuda:99", 2)
    for name, value in {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    check_devices("cpu", 1)
    check_devices("cpu", 2)
    with pytest.raises(InputError, match="devices: 3, but torchrun has started 2 processes"):
        check_devices("cpu", 3)
