"""Parameters by name: fixed, bounded, shared, taken from an earlier fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.conftest import hard_eam
from tests.potentials.test_eam_fit import QUICK, rattled

from pretrain_mlip import EAM, fit_eam
from pretrain_mlip.calculators.batched import label_structures
from pretrain_mlip.errors import InputError
from pretrain_mlip.potentials.eam.form import TAPER_START
from pretrain_mlip.potentials.eam.parameters import entries, freedom, get_values, named_values, set_values, start_from
from pretrain_mlip.potentials.eam.settings import EAMSettings

SHORT = QUICK.model_copy(update={"max_iterations": 15, "screening_iterations": 10, "starts": 2})


def test_names_and_values_are_those_of_the_equations() -> None:
    eam = hard_eam("fs")
    values = named_values(eam)
    assert values["depth.O-Si"] == pytest.approx(float(eam.log_depth[1].exp()))
    assert values["decay.Si-O"] == pytest.approx(float(eam.log_decay[1, 0].exp()))  # source Si, centre O
    assert values["linear.Si"] == float(eam.linear[1])
    # the minimum is where the Morse part is lowest, the shell where a lone Gaussian would peak
    distance = torch.linspace(1.0, 5.0, 40001, dtype=torch.float64)
    lowest = distance[eam.morse(0, 1, distance)[0].argmin()]
    assert values["minimum.O-Si"] == pytest.approx(float(lowest), abs=2e-4)
    eam.log_amplitude.fill_(-50.0)
    highest = distance[eam.density(0, 1, distance)[0].argmax()]
    assert values["shell_distance.O-Si"] < TAPER_START * eam.cutoff  # else the taper would move the peak
    assert values["shell_distance.O-Si"] == pytest.approx(float(highest), abs=2e-4)
    assert len(values) == sum(value.numel() for value in eam.parameters())


@given(seed=st.integers(0, 1000), form=st.sampled_from(["alloy", "fs"]))
@hypothesis_settings(max_examples=20, deadline=None)
def test_stored_and_physical_values_convert(seed: int, form: str) -> None:
    eam = EAM(["O", "Si"], 6.0, form)  # type: ignore[arg-type]
    stored = get_values(eam) + np.random.default_rng(seed).normal(size=len(get_values(eam)))
    set_values(eam, stored)
    assert (get_values(eam) == stored).all()
    for entry, value in zip(entries(eam), stored, strict=True):
        assert entry.stored(entry.physical(value)) == pytest.approx(value, abs=1e-9)


def test_the_slope_of_free_parameters() -> None:
    eam = EAM(["O", "Si"], 6.0)
    settings = EAMSettings(fixed={"depth": {"O-O": 0.3}}, shared=[["decay.O", "decay.Si"], ["root.O", "root.Si"]])
    moves = freedom(eam, settings)
    free = moves.free(moves.origin)
    assert len(free) == len(moves.origin) - 3
    gradient = np.random.default_rng(0).normal(size=len(moves.origin))
    for place in range(len(free)):
        step = np.zeros(len(free))
        step[place] = 1.0
        assert moves.slope(gradient)[place] == pytest.approx(gradient @ (moves.full(free + step) - moves.full(free)))


def test_a_fit_keeps_to_them() -> None:
    frames = label_structures(hard_eam(), rattled(6))
    settings = SHORT.model_copy(
        update={
            "fixed": {"depth": {"Si-O": 0.8}, "linear": {"O": 0.1}},
            "bounds": {"minimum": {"O-O": (2.4, 2.5)}, "square": {"Si": (0.5, 0.6)}},
            "shared": [["decay.O", "decay.Si"]],
        }
    )
    found = fit_eam(frames, settings=settings).report["parameters"]
    assert found["depth.O-Si"] == pytest.approx(0.8, rel=1e-12)
    assert found["linear.O"] == 0.1
    assert 2.4 - 1e-12 <= found["minimum.O-O"] <= 2.5 + 1e-12
    assert 0.5 - 1e-12 <= found["square.Si"] <= 0.6 + 1e-12
    assert found["decay.O"] == found["decay.Si"]
    free = fit_eam(frames, settings=SHORT).report["parameters"]
    assert free["decay.O"] != free["decay.Si"]
    assert abs(free["depth.O-Si"] - 0.8) > 1e-3


def test_everything_fixed() -> None:
    frames = label_structures(hard_eam(), rattled(3))
    values = named_values(hard_eam())
    fixed: dict[str, dict[str, float]] = {}
    for name, value in values.items():
        quantity, owner = name.split(".")
        fixed.setdefault(quantity, {})[owner] = value
    eam = fit_eam(frames, settings=SHORT.model_copy(update={"fixed": fixed}))
    assert eam.report["parameters"] == pytest.approx(values, rel=1e-12)


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ({"fixed": {"depth": {"Ni-Ni": 1.0}}}, r"no parameter 'depth.Ni-Ni'; there are depth.O-O"),
        ({"fixed": {"depth": {"O-O": -1.0}}}, r"eam.fixed.depth.O-O: -1 is out of range"),
        ({"fixed": {"minimum": {"Si-Si": 1.0}}}, r"must exceed 1.554"),
        ({"bounds": {"decay": {"O": (2.0, 1.0)}}}, "lower bound must be below"),
        ({"shared": [["decay.O", "depth.O-O"]]}, "only parameters of one kind"),
        ({"shared": [["minimum.O-O", "minimum.Si-Si"]]}, "equal covalent radii"),
    ],
)
def test_refuses(update: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        freedom(EAM(["O", "Si"], 6.0), SHORT.model_copy(update=update))


def test_warm_start(tmp_path: Path) -> None:
    frames = label_structures(hard_eam(), rattled(6))
    path = tmp_path / "eam.json"
    long = QUICK.model_copy(update={"max_iterations": 120})
    first = fit_eam(frames, settings=long)
    first.save(path)
    short = SHORT.model_copy(update={"starts": 1, "screening_iterations": 1, "max_iterations": 1})
    cold = fit_eam(frames, settings=short)
    warm = fit_eam(frames, settings=short.model_copy(update={"warm_start": path}))
    assert warm.report["loss"][-1] <= first.report["loss"][-1] * (1 + 1e-9) < 0.5 * cold.report["loss"][-1]
    # another set of elements takes what it can
    more = EAM(["O", "Si", "P"], 6.0)
    start_from(more, first, "eam.json")
    assert named_values(more)["depth.O-Si"] == pytest.approx(named_values(first)["depth.O-Si"])
    assert named_values(more)["depth.P-P"] == named_values(EAM(["O", "Si", "P"], 6.0))["depth.P-P"]
    with pytest.raises(InputError, match="of the form 'fs'"):
        fit_eam(frames, settings=short.model_copy(update={"warm_start": path, "form": "fs"}))
    with pytest.raises(InputError, match="none of the elements Ni"):
        start_from(EAM(["Ni"], 6.0), first, "eam.json")


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ({"fixed": {"depth": {"O-Si": 1.0, "Si-O": 2.0}}}, "the same parameter is fixed at another value"),
        ({"fixed": {"depth": {"O-Si": 1.0}}, "bounds": {"depth": {"O-Si": (2.0, 3.0)}}}, "outside of its own bounds"),
        (
            {"shared": [["depth.O-O", "depth.O-Si"]], "bounds": {"depth": {"O-O": (1.0, 2.0), "O-Si": (3.0, 4.0)}}},
            "within the bounds of all that share it",
        ),
    ],
)
def test_refuses_contradictions(update: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        freedom(EAM(["O", "Si"], 6.0), SHORT.model_copy(update=update))


def test_several_fixed_and_shared_parameters_do_not_disturb_each_other() -> None:
    eam = EAM(["O", "Si"], 6.0)
    settings = EAMSettings(
        fixed={"root": {"O": 3.0}, "depth": {"O-Si": 1.0, "Si-O": 1.0}, "decay": {"Si": 2.0}},
        shared=[["decay.O", "decay.Si"], ["depth.O-O", "depth.Si-Si"]],
    )
    with torch.no_grad():
        eam.log_depth[2] += 0.3
    moves = freedom(eam, settings)
    assert moves.origin[0] == moves.origin[2]  # the prior pulls all that share a value to one
    set_values(eam, moves.full(moves.free(moves.origin) + 0.1))
    found = named_values(eam)
    assert (found["root.O"], found["depth.O-Si"]) == (pytest.approx(3.0), pytest.approx(1.0))
    assert found["decay.O"] == found["decay.Si"] == pytest.approx(2.0)
    assert found["depth.O-O"] == found["depth.Si-Si"] == pytest.approx(0.5 * np.exp(0.1))


def test_a_warm_start_keeps_what_is_far_from_typical_values(tmp_path: Path) -> None:
    frames = label_structures(hard_eam(), rattled(3))
    far = EAM(["O", "Si"], 6.0)
    far.log_width.data.add_(1.5)
    far.save(tmp_path / "eam.json")
    one = {"starts": 1, "screening_iterations": 1, "max_iterations": 1, "warm_start": tmp_path / "eam.json"}
    near = EAM(["O", "Si"], 6.0)
    assert (freedom(near, SHORT).high < get_values(far)).any()
    moves = freedom(near, SHORT, get_values(far))
    assert (moves.low < get_values(far)).all()
    assert (moves.high > get_values(far)).all()
    assert (moves.origin == get_values(near)).all()  # what the prior pulls to stays
    with pytest.raises(InputError, match="instead of auto"):
        fit_eam(frames, settings=SHORT.model_copy(update={"form": "auto", **one}))
    with pytest.raises(InputError, match=r"no parameter 'decay.O'"):
        fit_eam(frames, settings=SHORT.model_copy(update={"form": "auto", "fixed": {"decay": {"O": 1.0}}}))
