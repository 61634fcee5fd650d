"""What the numbers say, in sentences: the verdict and the captions are computed, never written by hand."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.stats import binomtest

from pretrain_mlip.dynamics.kaplan_meier import logrank
from pretrain_mlip.report.style import array, display_name, ordered

Data = Mapping[str, Any]
MISSING = "–"
BASELINE = "vanilla"
HEADLINERS = ("replay", "finetune", "delta", "sam", "pretrain")  # who is held against the baseline, if present


def number(value: float | None, digits: int = 3) -> str:
    """Three significant digits without an exponent where that is readable, and a dash for nothing."""
    if value is None:
        return MISSING
    size = abs(value)
    if 10 ** (digits - 1) <= size < 1e6:
        return f"{value:,.0f}"
    return f"{value:#.{digits}g}".rstrip(".") if size else "0"


def percent(value: float) -> str:
    """A fraction as a whole percentage; the space does not break."""
    return f"{100 * value:.0f}\N{NO-BREAK SPACE}%"


def median(summary: Data) -> str:
    """Median survival in ps; a lower bound where more than half survived."""
    if summary["median_ps"] is None:
        return f"> {summary['duration_ps']:.2f}"
    return f"{summary['median_ps']:.2f}"


def protagonists(models: Data) -> tuple[str, str] | None:
    """The model to be judged and the baseline to hold it against; None where there are no two."""
    if BASELINE not in models:
        return None
    for candidate in (*HEADLINERS, *ordered(models)):
        if candidate in models and candidate not in (BASELINE, "eam"):
            return candidate, BASELINE
    return None


def alive_of(entry: Data) -> tuple[int, int]:
    """Replicas that reached the end, and all."""
    return sum(one["outcome"] == "completed" for one in entry["replicas"]), len(entry["replicas"])


def interval(alive: int, replicas: int) -> str:
    """What share of runs survives, with 95 % confidence (Clopper and Pearson, Biometrika 26, 404 (1934))."""
    low, high = binomtest(alive, replicas).proportion_ci(0.95, "exact")
    return f"{100 * low:.0f} to {percent(high)}"


def spread(seed_errors: Data | None, model: str, key: str) -> str:
    """Standard deviation over seeds, with a sign in front; empty where there is one seed."""
    values = [row[key] for row in (seed_errors or {}).get(model, []) if row[key] is not None]
    return f" ± {number(statistics.stdev(values), 2)}" if len(values) > 1 else ""


def names(models: list[str]) -> str:
    """Models in a row with "and" before the last."""
    shown = [display_name(model) for model in models]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def change(new: float, old: float) -> str:
    """How much lower or higher, in per cent."""
    if old == 0:
        return "from zero"
    ratio = new / old - 1.0
    return "unchanged" if abs(ratio) < 0.005 else f"{percent(abs(ratio))} {'lower' if ratio < 0 else 'higher'}"


def lives(entry: Data) -> tuple[list[float], list[bool]]:
    """Times of the replicas of a model in ps, and whether they failed then."""
    replicas = entry["replicas"]
    return [one["time_ps"] for one in replicas], [one["outcome"] != "completed" for one in replicas]


def survival_caption(section: Data) -> str:
    """Medians of the two protagonists with the log-rank test, and what the others did."""
    duration = next(iter(section.values()))["summary"]["duration_ps"]
    sentences = []
    pair = protagonists(section)
    if pair:
        new, old = (section[model] for model in pair)
        tested = p_value(logrank(*lives(new), *lives(old)))
        sentences.append(
            f"{display_name(pair[0])}: median survival {median(new['summary'])} ps against "
            f"{median(old['summary'])} ps for {display_name(pair[1])} (log-rank test: p {tested})."
        )
    safe = [model for model in ordered(section) if section[model]["summary"]["stable_fraction"] == 1.0]
    lost = [model for model in ordered(section) if section[model]["summary"]["stable_fraction"] == 0.0]
    if safe:
        sentences.append(f"Every run of {names(safe)} reached {duration:g} ps.")
    if lost:
        sentences.append(f"No run of {names(lost)} did.")
    sentences.append("Steps: Kaplan-Meier estimate; shading: 95\N{NO-BREAK SPACE}% confidence band.")
    return " ".join(sentences)


def failures_caption(section: Data) -> str:
    """Which checks ended the runs."""
    total: dict[str, int] = {}
    for entry in section.values():
        for check, count in entry["summary"]["failures"].items():
            total[check] = total.get(check, 0) + count
    if not total:
        return "No run failed. Dotted: the thermostat's target."
    listed = ", ".join(f"{check.replace('_', ' ')} ({count})" for check, count in sorted(total.items()))
    return f"What ended runs, all models together: {listed}. A cross marks a failure; dotted: the thermostat's target."


def sites_caption(replicas: Data) -> str:
    """What is drawn of the first failures."""
    drawn = [f"{display_name(model)}: {one['failure']['check'].replace('_', ' ')}" for model, one in replicas.items()]
    return f"The first bad structure of each model, atoms at fault ringed, among their neighbours. {'; '.join(drawn)}."


def parity_caption(section: Data, quantity: str) -> str:
    """Spread of the reference and how many points are shown."""
    reference = array(next(iter(section.values()))[quantity]["reference"])
    spread = float(np.std(reference)) if reference.size else 0.0
    what = (
        f"Energies per atom above a constant per element; the reference spreads by {1000 * spread:,.0f} meV/atom"
        if quantity == "energy"
        else f"Force components; the reference spreads by {spread:.2f} eV/Å"
    )
    return f"{what} (standard deviation). {reference.size:,} test points per panel; the line is perfect agreement."


def learning_caption(section: Data) -> str:
    """Last and best validation errors of the protagonists."""
    sentences = []
    for model in protagonists(section) or ():
        values = array(section[model]["val_forces_mae"])
        if np.isfinite(values).any():
            sentences.append(
                f"{display_name(model)} starts at {number(float(values[np.isfinite(values)][0]))} and reaches "
                f"{number(float(np.nanmin(values)))} meV/Å."
            )
    taught = [name for name in ordered(section) if not array(section[name]["dft_steps"]).any()]
    if len(taught) < len(section):
        sentences.append("Validation frames are DFT structures.")
    if taught:
        sentences.append(f"Those of {names(taught)} are perturbed structures with labels of the EAM.")
    return " ".join(sentences)


def dimers_caption(metrics: Data | None) -> str:
    """Who has a wall everywhere and who has not."""
    text = "Isolated pairs, zero at the largest distance; shaded: closer than any pair that was trained on."
    if not metrics:
        return text
    weak = {
        m: [p for p, values in pairs.items() if not values.get("repulsive_at_contact")] for m, pairs in metrics.items()
    }
    sound = [model for model in ordered(weak) if not weak[model]]
    parts = [
        f"{display_name(model)} lacks a sound wall for {', '.join(weak[model])}."
        for model in ordered(weak)
        if weak[model]
    ]
    if sound:
        parts.append(f"{names(sound)}: every pair repels everywhere inside contact (0.6 of the covalent length).")
    return " ".join([*parts, text])


def rdf_caption(section: Data) -> str:
    """Which model is closest to the DFT structure."""
    mae = {model: values["total"] for model, values in section["mae"].items() if "total" in values}
    best = best_of(mae, largest=False)
    head = f"Closest to DFT: {names(best)} (mean absolute deviation of g {mae[best[0]]:.3f}). " if best else ""
    frames = section["reference"]["frames"] if section.get("reference") else 0
    tail = f"Black: {frames} DFT frames. " if frames else ""
    return f"{head}{tail}{section['description']}".strip()


def distances_caption(section: Data) -> str:
    """How much closer the perturbed structures come."""
    parts = []
    for pair in sorted(section):
        r = array(section[pair]["r"])
        before, after = (r[array(section[pair][key]) > 0] for key in ("before", "after"))
        if before.size and after.size:
            parts.append(f"{pair} {before[0]:.2f} to {after[0]:.2f}\N{NO-BREAK SPACE}Å")
    return f"Shortest distance before and after the perturbation: {'; '.join(parts)}." if parts else ""


def phonons_caption(crystal: str, found: Data) -> str:
    """Which of the models that are drawn together find the crystal stable."""
    soft = [model for model in ordered(found) if found[model]["imaginary"]]
    stable = [model for model in ordered(found) if model not in soft]
    parts = [f"{crystal}: "]
    if stable:
        parts.append(f"no imaginary mode with {names(stable)}. ")
    if soft:
        parts.append(f"Imaginary modes, drawn below zero, with {names(soft)}. ")
    if "eam" in found and len(found) > 1:
        parts.append("Beneath each: those of the EAM.")
    return "".join(parts).strip()


def verification_text(section: Data) -> str:
    """Who passes what is mandatory, and what single precision costs."""
    failing = [
        model
        for model in ordered(section)
        if any(row["category"] == "mandatory" and row["grade"] == "F" for row in section[model].values())
    ]
    text = "" if failing else "All models pass every mandatory check."
    for model in ordered(section):
        for name, row in section[model].items():
            if row["grade"] == "F":
                text += f" {display_name(model)} fails {name} ({row['category']}): {row['detail']}."
    costs = {
        model: row["error"]
        for model in ordered(section)
        if (row := section[model].get("single-precision")) and row["error"] is not None
    }
    if costs:
        listed = ", ".join(
            f"{display_name(model)} {f'{error:.0e}' if error else '0'}" for model, error in costs.items()
        )
        text += f" Single precision in place of double changes forces by this share of their size: {listed}."
    return text.strip()


def p_value(p: float | None) -> str:
    """A p value with its sign; null where the test had nothing to compare."""
    return "undefined" if p is None else f"= {p:.2g}" if p >= 0.001 else "< 0.001"


def best_of(values: Mapping[str, float | None], *, largest: bool = True) -> list[str]:
    """All models that share the best value, in the usual order."""
    known = {model: value for model, value in values.items() if value is not None}
    if not known:
        return []
    best = max(known.values()) if largest else min(known.values())
    return [model for model in ordered(known) if known[model] == best]
