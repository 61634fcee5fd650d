"""Statistics of survival, beside what they are by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2, hypergeom

from pretrain_mlip.dynamics.failure import Failure
from pretrain_mlip.dynamics.kaplan_meier import logrank, survival_curve, survival_summary
from pretrain_mlip.dynamics.survival import ReplicaResult


def result(time_ps: float, outcome: str = "failed", check: str = "too_close") -> ReplicaResult:
    failure = Failure(check, 1, time_ps * 1000) if outcome == "failed" else None
    return ReplicaResult("model", 0, 0, 0, outcome, time_ps, failure)


def test_curve_is_kaplan_meiers_product():
    # By hand: 5 at risk, one fails (4/5); 4 at risk, one fails and one is lost (3/4); two survive to the end.
    curve = survival_curve([1.0, 2.0, 2.0, 3.0, 3.0], [True, True, False, False, False])
    assert curve["time"] == [0.0, 1.0, 2.0, 3.0]
    assert curve["fraction"] == pytest.approx([1.0, 0.8, 0.6, 0.6])


@given(st.lists(st.tuples(st.floats(0, 3), st.booleans()), min_size=1, max_size=30))
def test_curve_falls_within_its_band(outcomes):
    times, failed = zip(*outcomes, strict=True)
    curve = {name: np.array(values) for name, values in survival_curve(times, failed).items()}
    assert (np.diff(curve["fraction"]) <= 1e-12).all()
    assert all(np.isfinite(values).all() for values in curve.values())
    assert (curve["low"] <= curve["fraction"] + 1e-12).all()
    assert (curve["fraction"] <= curve["high"] + 1e-12).all()


def test_without_censoring_the_curve_is_the_empirical_fraction_and_its_area_the_mean():
    times = [0.5, 1.0, 1.5, 2.5]
    summary = survival_summary([result(t) for t in times], 3.0)
    assert summary["mean_ps"] == pytest.approx(np.mean(times))
    assert summary["area"] == pytest.approx(np.mean(times) / 3.0)
    assert summary["median_ps"] == 1.0
    assert summary["stable_fraction"] == 0.0


def test_summary_of_survivors_failures_and_crashes():
    found = [result(1.0), result(2.0, check="too_hot"), result(0.0, "crashed"), *[result(3.0, "completed")] * 5]
    summary = survival_summary(found, 3.0)
    assert summary["median_ps"] is None
    assert summary["stable_fraction"] == 5 / 8
    assert summary["failures"] == {"crashed": 1, "too_close": 1, "too_hot": 1}
    assert summary["mean_ps"] == pytest.approx((1 + 2 + 0 + 15) / 8)
    all_survive = survival_summary([result(3.0, "completed")] * 3, 3.0)
    assert (all_survive["area"], all_survive["median_ps"], all_survive["failures"]) == (1.0, None, {})
    assert survival_summary([result(3.001)], 3.0)["area"] == 1.0  # the last step may end a little later


lives = st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.5, 0.7, 1.0]), st.booleans()), min_size=1, max_size=12)


@given(lives, lives)
def test_logrank_is_mantels(first, second) -> None:
    """At each time of a failure, failures are dealt out as from an urn (hypergeometric)."""
    surplus = variance = 0.0
    for time in sorted({time for time, failed in [*first, *second] if failed}):
        at_risk = [sum(one >= time for one, _ in group) for group in (first, second)]
        failures = [sum(one == time and failed for one, failed in group) for group in (first, second)]
        drawn = hypergeom(sum(at_risk), at_risk[0], sum(failures))
        surplus += failures[0] - drawn.mean()
        variance += np.nan_to_num(drawn.var())  # of one at risk there is none
    p = logrank(*zip(*first, strict=True), *zip(*second, strict=True))
    if variance < 1e-12:
        assert p is None
    else:
        assert p == pytest.approx(chi2.sf(surplus**2 / variance, 1), rel=1e-9)


def test_logrank_without_failures_is_undefined() -> None:
    assert logrank([1.0, 1.0], [False, False], [1.0], [False]) is None
    assert logrank([0.1, 0.2, 0.3, 0.4], [True] * 4, [1.0] * 4, [False] * 4) == pytest.approx(0.0067, abs=1e-4)
