"""Stability campaigns of any potentials: trials, folders that go on, what is told of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from tests.conftest import hard_eam

from pretrain_mlip.calculators.sources import Source, source_of_file, source_of_function
from pretrain_mlip.dynamics.protocols import PROTOCOLS
from pretrain_mlip.errors import InputError
from pretrain_mlip.pipeline.stability import names_of, read_trials, run_stability, spread_evenly
from pretrain_mlip.report.stability import StabilityResults, tells_nothing

TOYS = Path(__file__).parents[1] / "dynamics" / "toy_calculators.py"
SHORT = {"replicas": 2, "md": {"duration_ps": 0.06, "timestep": 1.0}}
STARTS = [bulk("Cu", cubic=True) * (1, 1, count) for count in (1, 2, 3)]


def sources(*functions: str) -> dict[str, Source]:
    return {name: source_of_function(f"{TOYS}:make_{name}") for name in functions}


def campaign(output: Path, *functions: str, protocols: tuple[str, ...] = ("nvt",), **changes: object) -> dict:
    trials = read_trials(protocols, SHORT | changes, "settings")
    run_stability(sources(*functions), STARTS, trials, output, data="starts.extxyz", baseline=functions[0])
    return StabilityResults.read(output).trials


def test_a_trial_for_each_protocol_and_temperature() -> None:
    trials = read_trials(["heat", "nvt", "heat"], {"temperatures": [300, 1000], "md": {"duration_ps": 2}}, "settings")
    assert list(trials) == ["heat_300K", "heat_1000K", "nvt_300K", "nvt_1000K"]
    assert trials["heat_1000K"].md.temperature == 1000
    assert trials["heat_1000K"].md.last_temperature == 6000
    assert {trial.md.duration_ps for trial in trials.values()} == {2.0}
    for name, settings in PROTOCOLS.items():
        assert read_trials([name], {}, "settings")[name].md.model_dump() == settings.model_dump()
    for protocols, content, message in (
        (["boil"], {}, "protocol 'boil': expected one of heat, compress, nvt, nve, arena_heat"),
        (["heat"], {"md": {"duration": 2}}, r"md\.duration.*duration_ps"),
        (["heat"], {"md": 3}, "a group of settings"),
        (["nve"], {"md": {"friction": 0.1}}, "no effect with ensemble=nve"),
        (["nvt"], {"temperatures": [-3]}, "temperature"),
        (["heat"], {"replica": 2}, "replicas"),
    ):
        with pytest.raises(InputError, match=message):
            read_trials(protocols, content, "settings")


def test_starts_are_spread_over_the_data() -> None:
    for number in (1, 2, 7, 10, 64, 100):
        order = spread_evenly(number)
        assert sorted(order) == list(range(number))
        for few in (2, 4, 8):
            if few <= number // 2:
                gaps = np.diff([*sorted(order[:few]), number])
                assert gaps.max() <= 2 * number / few
    assert spread_evenly(10) == [0, 8, 4, 2, 6, 1, 9, 5, 3, 7]


def test_names_are_told_apart(tmp_path: Path) -> None:
    files = [tmp_path / folder / "finetune" / "best.pt" for folder in ("a", "b")]
    found = [Source("finetune", hard_eam, (), str(file)) for file in files]
    first, second = names_of(found, ["a/finetune/best.pt", "b/finetune/best.pt"])
    assert (first, second) == ("a-finetune-best.pt", "b-finetune-best.pt")
    with pytest.raises(InputError, match="twice"):
        names_of(found, ["same.pt", "same.pt"])


def test_a_potential_is_told_by_its_content(tmp_path: Path) -> None:
    hard_eam().save(tmp_path / "eam.json")
    first = source_of_file(tmp_path / "eam.json").identity
    (tmp_path / "copy").mkdir()
    hard_eam().save(tmp_path / "copy" / "eam.json")
    assert source_of_file(tmp_path / "copy" / "eam.json").identity == first
    function = source_of_function(f"{TOYS}:make_emt")
    assert function.identity == f"{TOYS}:make_emt"
    assert function.path is None


def test_a_campaign_and_what_is_added_to_it(tmp_path: Path) -> None:
    (trial,) = campaign(tmp_path, "emt", "attraction").values()
    assert trial.survival["emt"].summary.stable_fraction == 1.0
    assert trial.survival["attraction"].summary.stable_fraction == 0.0
    assert trial.logrank == {"attraction": pytest.approx(0.0896, abs=1e-4)}  # the least that two and two can give
    assert trial.structures == ["starts.extxyz[0], Cu4", "starts.extxyz[2], Cu12"]
    assert tells_nothing({name: one.model_dump() for name, one in trial.survival.items()}) == ""
    replica = tmp_path / "replicas" / "nvt" / "emt-000.json"
    before = replica.stat().st_mtime_ns
    again = campaign(tmp_path, "emt", "attraction", "bug", protocols=("nvt", "nve"))
    assert replica.stat().st_mtime_ns == before
    assert list(again) == ["nvt", "nve"]
    assert again["nvt"].survival["bug"].summary.failures == {"crashed": 2}
    more = campaign(tmp_path, "emt", replicas=4)["nvt"]
    assert replica.stat().st_mtime_ns == before
    assert [one.split()[-1] for one in more.structures] == ["Cu4", "Cu12", "Cu8"]
    assert [one["structure"] for one in more.survival["emt"].replicas] == [0, 1, 2, 0]
    assert list(more.survival) == ["emt", "attraction", "bug"]  # those that are not run now are kept
    assert list(more.logrank) == ["attraction", "bug"]
    assert list(campaign(tmp_path, "emt", protocols=("heat",))) == ["nvt", "nve", "heat"]
    page = (tmp_path / "report.html").read_text()
    assert "tells nothing, every replica of every potential reached the end" in page
    assert "attraction 0 of 2 (0 to 84\N{NO-BREAK SPACE}%), " in page
    assert "emt 4 of 4 (40 to 100\N{NO-BREAK SPACE}%)" in page
    with pytest.raises(InputError, match=r"md\.duration_ps was 0\.06, is 0\.05"):
        campaign(tmp_path, "emt", md={"duration_ps": 0.05, "timestep": 1.0})


def test_trajectories_of_each_replica(tmp_path: Path) -> None:
    campaign(tmp_path, "emt", trajectories=True)
    found = sorted(path.name for path in (tmp_path / "trajectories" / "nvt").iterdir())
    assert found == ["emt-000.extxyz", "emt-001.extxyz"]


def test_folders_of_something_else_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("model: {}\n")
    with pytest.raises(InputError, match="is the folder of a run"):
        campaign(tmp_path, "emt")
    (tmp_path / "results.json").write_text('{"format_version": 1, "title": "a run"}')
    with pytest.raises(InputError, match="not of a stability campaign"):
        campaign(tmp_path, "emt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "results.json"]
