"""Kaplan-Meier statistics of replicas: how long they survive, and whether two potentials differ."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from pretrain_mlip.errors import InputError

if TYPE_CHECKING:
    from pretrain_mlip.dynamics.survival import ReplicaResult


def survival_curve(
    times: Sequence[float], failed: Sequence[bool], confidence_level: float = 0.95
) -> dict[str, list[float]]:
    """Kaplan-Meier estimate of the fraction that survives a time, with a log-log confidence band.

    Args:
        times: time of the failure, or the time up to which a survivor was watched.
        failed: whether the replica failed at that time.
        confidence_level: of the pointwise band.

    Returns:
        ``time``, ``fraction``, ``low``, ``high``: corners of a step function that starts at time 0 and holds each value
        until the next time. Where the band is undefined it is [1, 1] before the first failure, and after the last
        survivor it goes from 0 to the upper bound before.
    """
    when, dead = np.asarray(times, dtype=float), np.asarray(failed, dtype=bool)
    if when.size == 0:
        raise InputError("survival curve: no replica")
    survivors = stats.ecdf(stats.CensoredData.right_censored(when, ~dead)).sf
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # scipy warns where the band is undefined; filled below
        band = survivors.confidence_interval(confidence_level, method="log-log")
    curve: dict[str, list[float]] = {"time": [0.0], "fraction": [1.0], "low": [1.0], "high": [1.0]}
    for time, fraction, low, high in zip(
        survivors.quantiles, survivors.probabilities, band.low.probabilities, band.high.probabilities, strict=True
    ):
        undefined = (1.0, 1.0) if fraction == 1.0 else (0.0, curve["high"][-1])
        curve["time"].append(float(time))
        curve["fraction"].append(float(fraction))
        curve["low"].append(float(low) if np.isfinite(low) else undefined[0])
        curve["high"].append(float(high) if np.isfinite(high) else undefined[1])
    return curve


def survival_summary(results: Sequence[ReplicaResult], duration_ps: float) -> dict[str, Any]:
    """Numbers of a survival campaign. A crashed replica counts as failed at time 0.

    Args:
        results: all replicas of one potential.
        duration_ps: time after which a replica has passed.

    Returns:
        ``replicas``; ``median_ps`` (None when more than half survive); ``mean_ps`` restricted to the duration, the area
        under the Kaplan-Meier curve; ``area``, that area over the duration (1 = all survive); ``stable_fraction`` of
        replicas that completed; ``failures``, how often each check fired; ``duration_ps``.
    """
    curve = survival_curve([r.time_ps for r in results], [r.outcome != "completed" for r in results])
    time, fraction = np.array(curve["time"]), np.array(curve["fraction"])
    below = np.flatnonzero(fraction <= 0.5)
    widths = np.diff(np.append(np.minimum(time, duration_ps), duration_ps))
    mean = float(np.sum(fraction * widths))
    failures = Counter(r.failure.check if r.failure else r.outcome for r in results if r.outcome != "completed")
    return {
        "replicas": len(results),
        "median_ps": float(time[below[0]]) if below.size else None,
        "mean_ps": mean,
        "area": mean / duration_ps,
        "stable_fraction": sum(r.outcome == "completed" for r in results) / len(results),
        "failures": dict(sorted(failures.items())),
        "duration_ps": duration_ps,
    }


def survival_section(results: Sequence[ReplicaResult], duration_ps: float) -> dict[str, Any]:
    """``replicas``, ``curve`` and ``summary`` of one potential, as results.json has them."""
    curve = survival_curve([r.time_ps for r in results], [r.outcome != "completed" for r in results])
    return {
        "replicas": [result.to_dict() for result in results],
        "curve": curve,
        "summary": survival_summary(results, duration_ps),
    }


def logrank(
    first_times: Sequence[float],
    first_failed: Sequence[bool],
    second_times: Sequence[float],
    second_failed: Sequence[bool],
) -> float | None:
    """P value of the log-rank test (Mantel 1966) that two potentials survive alike; None where nothing failed.

    Args:
        first_times: time of the failure, or up to which a survivor was watched.
        first_failed: whether the replica failed then.
        second_times: of the other potential.
        second_failed: likewise.
    """
    first, second = (
        stats.CensoredData.right_censored(np.asarray(times, dtype=float), ~np.asarray(failed, dtype=bool))
        for times, failed in ((first_times, first_failed), (second_times, second_failed))
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # no failure on either side: 0 / 0
        p = float(stats.logrank(first, second).pvalue)
    return p if np.isfinite(p) else None
