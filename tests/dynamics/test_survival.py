from __future__ import annotations

import functools
import json
import os

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from toy_calculators import make_attraction, make_bug, make_emt, make_exit

from pretrain_mlip.dynamics.failure import Failure
from pretrain_mlip.dynamics.md import MDSettings
from pretrain_mlip.dynamics.survival import ReplicaResult, StabilitySettings, run_replicas
from pretrain_mlip.errors import InputError

MD = MDSettings(timestep=1.0, duration_ps=0.03, check_every=5)
START = [bulk("Cu", cubic=True), Atoms("Cu2", [[0, 0, 0], [0, 0, 2.5]], cell=[9, 9, 9])]


def refuse() -> None:
    raise InputError("model.pt: no such file")


def result(time_ps: float, outcome: str = "failed", check: str = "too_close") -> ReplicaResult:
    failure = Failure(check, 1, time_ps * 1000) if outcome == "failed" else None
    return ReplicaResult("model", 0, 0, 0, outcome, time_ps, failure)


@pytest.mark.parametrize("workers", [1, 2])
def test_every_outcome_is_recorded_and_nothing_is_lost(workers):
    potentials = {"good": make_emt, "bug": make_bug}
    if workers > 1:  # this one kills the process it runs in
        potentials["exit"] = make_exit
    before = dict(os.environ)
    results = run_replicas(potentials, START, StabilitySettings(replicas=2, md=MD), workers=workers)
    assert dict(os.environ) == before
    assert {name: [r.outcome for r in found] for name, found in results.items()} == {
        name: ["completed"] * 2 if name == "good" else ["crashed"] * 2 for name in potentials
    }
    assert "wrong shape" in results["bug"][0].error
    assert [(r.replica, r.structure, r.seed) for r in results["good"]] == [(0, 0, 0), (1, 1, 1)]
    assert len(results["good"][1].frames[0]) == 2


def test_processes_and_one_process_agree():
    runs = [run_replicas({"emt": make_emt}, START, StabilitySettings(replicas=2, md=MD), workers=w) for w in (1, 2)]
    for here, there in zip(*(run["emt"] for run in runs), strict=True):
        assert here.to_dict() == there.to_dict()
        np.testing.assert_array_equal(here.frames[-1].positions, there.frames[-1].positions)


def test_replica_k_starts_the_same_for_every_potential(tmp_path):
    settings = StabilitySettings(replicas=2, md=MD, seed=5)
    results = run_replicas({"a": make_emt, "b": make_attraction}, START[1:], settings, trajectories=tmp_path)
    first = [results[name][k].frames[0].get_velocities() for name in "ab" for k in (0, 1)]
    np.testing.assert_array_equal(first[0], first[2])
    np.testing.assert_array_equal(first[1], first[3])
    assert not np.allclose(first[0], first[1])
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{n}-00{k}.extxyz" for n in "ab" for k in (0, 1)]


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_input_ends_the_campaign(workers):
    with pytest.raises(InputError, match="no such file"):
        run_replicas({"missing": functools.partial(refuse)}, START, StabilitySettings(md=MD), workers=workers)
    with pytest.raises(InputError, match="structure"):
        run_replicas({"emt": make_emt}, [], StabilitySettings())


def test_results_survive_json():
    for one in (result(1.0), result(0.0, "crashed"), result(3.0, "completed")):
        assert ReplicaResult.from_dict(json.loads(json.dumps(one.to_dict()))) == one
