"""Campaigns that are interrupted, changed or damaged."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ase.build import bulk
from ase.io import read
from toy_calculators import FreeGas, make_attraction, make_bug, make_emt

from pretrain_mlip.dynamics.md import MDSettings
from pretrain_mlip.dynamics.replica_store import ReplicaStore
from pretrain_mlip.dynamics.survival import StabilitySettings, run_replicas
from pretrain_mlip.errors import ComputationError, InputError

MD = MDSettings(timestep=1.0, duration_ps=0.03, check_every=5, save_every=10)
START = [bulk("Cu", cubic=True)]
CAMPAIGN = StabilitySettings(replicas=3, md=MD)
MAKERS = {"good": make_emt, "bad": make_attraction, "ill": make_bug}


def store(folder: Path, **changes: str) -> ReplicaStore:
    return ReplicaStore(folder, {name: name for name in MAKERS} | changes)


class Stopping:
    """Makes calculators; Ctrl-C comes when it is asked for one too many."""

    def __init__(self, most: int) -> None:
        self.most, self.made = most, 0

    def __call__(self) -> object:
        self.made += 1
        if self.made > self.most:
            raise KeyboardInterrupt
        return make_emt()


def test_an_interrupted_campaign_goes_on(tmp_path: Path) -> None:
    whole = run_replicas(MAKERS, START, CAMPAIGN)
    with pytest.raises(KeyboardInterrupt):
        run_replicas(MAKERS | {"good": Stopping(2)}, START, CAMPAIGN, store=store(tmp_path))
    done = {path.name for path in tmp_path.glob("*.json")}
    assert {"good-000.json", "good-001.json", "bad-001.json"} <= done
    assert "good-002.json" not in done
    counted = Stopping(1)
    found = run_replicas(MAKERS | {"good": counted}, START, CAMPAIGN, store=store(tmp_path))
    assert counted.made == 1
    assert list(found) == list(whole)
    for name, replicas in whole.items():
        assert [one.replica for one in found[name]] == [0, 1, 2]
        known = [json.loads(json.dumps(one.to_dict())) for one in found[name]]
        assert known == [json.loads(json.dumps(one.to_dict())) for one in replicas]
    assert found["ill"][0].outcome == "crashed"
    assert run_replicas(dict.fromkeys(MAKERS, Stopping(0)), START, CAMPAIGN, store=store(tmp_path)).keys() == {*MAKERS}
    more = CAMPAIGN.model_copy(update={"replicas": 4})
    assert len(run_replicas({"good": Stopping(1)}, START, more, store=store(tmp_path))["good"]) == 4


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Writing more into a file fails, as it does on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_no_crash_of_a_potential(tmp_path: Path, workers: int) -> None:
    """And the campaign goes on where it was once there is room, within the replica too."""
    kept = store(tmp_path / "kept")
    names = dict.fromkeys(("good", "bad"), make_emt)
    large = [bulk("Cu", cubic=True) * (3, 3, 3)]
    whole = run_replicas(names, large, CAMPAIGN)
    frames = tmp_path / "frames"
    with (
        largest_file(25_000),  # two of the four frames
        pytest.raises(ComputationError, match=r"replica 0 of .* cannot be written .*make room on the disk"),
    ):
        run_replicas(names, large, CAMPAIGN, trajectories=frames, store=kept, workers=workers)
    assert not list((tmp_path / "kept").glob("*.json"))
    assert list(frames.glob("*.part"))
    found = run_replicas(names, large, CAMPAIGN, trajectories=frames, store=kept, workers=workers)
    for name, replicas in whole.items():
        assert [one.outcome for one in found[name]] == ["completed"] * 3
        for one, other in zip(found[name], replicas, strict=True):
            assert one.thermo.potential_energy[-1] == pytest.approx(other.thermo.potential_energy[-1], abs=1e-9)
            assert len(read(frames / f"{name}-{one.replica:03d}.extxyz", ":")) == len(other.frames) == 4


def test_the_last_good_and_the_first_bad_structure_are_kept(tmp_path: Path) -> None:
    settings = StabilitySettings(replicas=1, md=MD.model_copy(update={"duration_ps": 0.1}))
    (found,) = run_replicas({"bad": make_attraction}, START, settings, store=store(tmp_path))["bad"]
    assert found.failure.check == "too_hot"
    good, bad = read(tmp_path / "bad-000.failed.extxyz", ":")
    assert good.info["step"] == found.frames[-1].info["step"] < found.failure.step
    assert bad.get_temperature() == pytest.approx(found.failure.value, rel=1e-6)
    assert found.site["symbols"][0] == "Cu"
    again = run_replicas({"bad": make_attraction}, START, settings, store=store(tmp_path))["bad"]
    assert again[0].site == found.site
    # Computed again, and no longer bad
    mild = settings.model_copy(update={"md": MD.model_copy(update={"duration_ps": 0.001})})
    replacing = ReplicaStore(tmp_path, {"bad": "bad"}, replace=True)
    assert run_replicas({"bad": make_attraction}, START, mild, store=replacing)["bad"][0].outcome == "completed"
    assert not (tmp_path / "bad-000.failed.extxyz").exists()


def test_another_campaign_is_refused(tmp_path: Path) -> None:
    one = CAMPAIGN.model_copy(update={"replicas": 1})
    run_replicas({"good": make_emt}, START, one, store=store(tmp_path))
    longer = one.model_copy(update={"md": MD.model_copy(update={"duration_ps": 0.04})})
    other = [START[0].copy()]
    other[0].rattle(0.01)
    for campaign, structures, kept, message in (
        (longer, START, store(tmp_path), r"good-000\.json.*md\.duration_ps was 0\.03, is 0\.04"),
        (one, other, store(tmp_path), "structure was Cu4"),
        (one.model_copy(update={"seed": 1}), START, store(tmp_path), "seed was 0, is 1"),
        (one, START, store(tmp_path, good="another file"), "potential was good, is another file"),
    ):
        with pytest.raises(InputError, match=message):
            run_replicas({"good": Stopping(0)}, structures, campaign, store=kept)
    replacing = ReplicaStore(tmp_path, {"good": "good"}, replace=True)
    counted = Stopping(1)
    run_replicas({"good": counted}, START, longer, store=replacing)
    assert counted.made == 1
    for damage in ("{", "[]", '{"identity": {}}'):
        (tmp_path / "good-000.json").write_text(damage)
        with pytest.raises(InputError, match=r"good-000\.json"):
            run_replicas({"good": make_emt}, START, longer, store=store(tmp_path))


def test_a_replica_that_was_interrupted_goes_on_in_its_trajectory(tmp_path: Path) -> None:
    class Interrupted(FreeGas):
        def _fail(self, _: object) -> object:
            raise KeyboardInterrupt

    one = CAMPAIGN.model_copy(update={"replicas": 1})
    places = {"store": store(tmp_path / "replicas"), "trajectories": tmp_path / "md"}
    with pytest.raises(KeyboardInterrupt):
        run_replicas({"good": lambda: Interrupted(fails_at=25)}, START, one, **places)
    gas = FreeGas()
    (found,) = run_replicas({"good": lambda: gas}, START, one, **places)["good"]
    assert gas.calls == 11  # the frame of step 20, and ten steps
    assert found.outcome == "completed"
    assert [frame.info["step"] for frame in read(tmp_path / "md" / "good-000.extxyz", ":")] == [0, 10, 20, 30]
    assert found.thermo.time_ps[-1] == pytest.approx(0.03)
    assert len(found.thermo.time_ps) == 7
