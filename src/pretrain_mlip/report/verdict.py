"""What a run comes to, in a few sentences that are computed from its numbers, losses included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pretrain_mlip.report.style import display_name, ordered
from pretrain_mlip.report.words import (
    BASELINE,
    alive_of,
    best_of,
    change,
    interval,
    median,
    names,
    number,
    protagonists,
    spread,
)

Data = Mapping[str, Any]


def verdict(results: Data) -> list[str]:
    """Who survives first, then at which errors, and what is left to doubt.

    Args:
        results: of a run, as results.json has them.
    """
    errors, trials = results["errors"] or {}, _trials(results)
    best = _survivor(errors, trials)
    known = {**errors, **{model: entry for section in trials.values() for model, entry in section.items()}}
    pair = (best, BASELINE) if best and BASELINE in known and best != BASELINE else protagonists(known)
    sentences = [
        *(_survival(best, errors, trials) if best else []),
        _comparison(results, *pair) if pair else "",
        _most_accurate(errors),
        _teacher(errors, trials),
        _doubts(results),
    ]
    return [sentence for sentence in sentences if sentence]


def _trials(results: Data) -> dict[str, Data]:
    """What replicas went through -> section of the results."""
    kinds = {"heated": results["survival"], "squeezed": results["squeeze"]}
    return {word: section for word, section in kinds.items() if section}


def _lives(trials: Mapping[str, Data]) -> dict[str, tuple[tuple[int, float], ...]]:
    """Trained model in every trial -> for each, replicas that reached the end, and the area under the curve."""
    models = {model for section in trials.values() for model in section if model != "eam"}
    return {
        model: tuple((alive_of(section[model])[0], section[model]["summary"]["area"]) for section in trials.values())
        for model in ordered(models)
        if all(model in section for section in trials.values())
    }


def _survivor(errors: Data, trials: Mapping[str, Data]) -> str | None:
    """The trained model most of whose replicas lived, of several that which lived longest, then the most accurate."""
    lives = _lives(trials)
    if not lives:
        return None
    scores = {model: tuple(map(sum, zip(*found, strict=True))) for model, found in lives.items()}
    most = [model for model in lives if scores[model] == max(scores.values())]
    accurate = best_of({model: _forces(errors, model) for model in most}, largest=False)
    return (accurate or most)[0]


def _survival(best: str, errors: Data, trials: Mapping[str, Data]) -> list[str]:
    """How many replicas of the best and of the baseline lived, and how sure that is."""
    lives = _lives(trials)
    equals = [model for model in lives if lives[model] == lives[best] and model != best]
    if len(lives) == 1:
        return [f"{display_name(best)}: {_counts(best, trials)}.", f"{_shares(best, trials)}."]
    if len(equals) == len(lives) - 1:
        return [f"Survival tells no difference between the trained models: of each, {_counts(best, trials)}."]
    if not any(alive for found in lives.values() for alive, _ in found):
        return [f"No replica of a trained model reached the end; those of {display_name(best)} lasted longest."]
    subject = f"{names([best, *equals])} {'survive' if equals else 'survives'} best"
    headline = f"{subject}: {_counts(best, trials)}" + (" with each" if equals else "")
    sure = _shares(best, trials)
    if BASELINE in lives and BASELINE not in (best, *equals):
        headline += f"; of {BASELINE}, {_counts(BASELINE, trials, bare=True)}"
        sure += f", with {BASELINE} {_shares(BASELINE, trials, bare=True)}"
    if equals and _forces(errors, best) is not None:
        sure += f". {display_name(best)} has the lowest force error of these"
    return [f"{headline}.", f"{sure}."]


def _counts(model: str, trials: Mapping[str, Data], *, bare: bool = False) -> str:
    counts = {word: "{} of {}".format(*alive_of(section[model])) for word, section in trials.items()}
    if bare:
        return " and ".join(counts.values())
    return f"{' and '.join(f'{count} {word}' for word, count in counts.items())} replicas reached the end"


def _shares(model: str, trials: Mapping[str, Data], *, bare: bool = False) -> str:
    shares = {word: interval(*alive_of(section[model])) for word, section in trials.items()}
    if bare:
        return " and ".join(shares.values())
    told = " and ".join(f"{share} of {word}" for word, share in shares.items())
    return f"With 95\N{NO-BREAK SPACE}% confidence, {told} runs reach the end"


def _forces(errors: Data, model: str) -> float | None:
    return errors.get(model, {}).get("all", {}).get("forces_mae")


def _comparison(results: Data, new: str, old: str) -> str:
    """Errors and median survival of two models."""
    errors, survival = results["errors"] or {}, results["survival"] or {}
    parts = []
    for key, label, unit in (("forces_mae", "force MAE", "meV/Å"), ("energy_mae", "energy MAE", "meV/atom")):
        a, b = (errors.get(model, {}).get("all", {}).get(key) for model in (new, old))
        if a is not None and b is not None:
            one, other = (spread(results["seed_errors"], model, key) for model in (new, old))
            parts.append(f"{label} {number(a)}{one} against {number(b)}{other} {unit} ({change(a, b)})")
    if new in survival and old in survival:
        parts.append(
            f"median survival {median(survival[new]['summary'])} against {median(survival[old]['summary'])} ps"
        )
    return f"{display_name(new)} against {display_name(old)}: {'; '.join(parts)}." if parts else ""


def _most_accurate(errors: Data) -> str:
    known = {model: error for model in errors if model != "eam" and (error := _forces(errors, model)) is not None}
    best = best_of(known, largest=False)
    return f"Lowest force error of the trained models: {names(best)} ({number(known[best[0]])} meV/Å)." if best else ""


def _teacher(errors: Data, trials: Mapping[str, Data]) -> str:
    if not trials or not all("eam" in section for section in trials.values()):
        return ""
    error = _forces(errors, "eam")
    return f"The EAM: {_counts('eam', trials)}{'' if error is None else f', force MAE {number(error)} meV/Å'}."


def _doubts(results: Data) -> str:
    """What should keep a reader from using a model."""
    parts = []
    for model, checks in (results["verification"] or {}).items():
        failed = [name for name, row in checks.items() if row["category"] == "mandatory" and row["grade"] == "F"]
        if failed:
            parts.append(f"{display_name(model)} fails {', '.join(failed)}")
    for crystal, found in (results["phonons"] or {}).items():
        soft = [model for model in ordered(found) if found[model]["imaginary"]]
        if soft:
            parts.append(f"{crystal} has imaginary phonons with {names(soft)}")
        if failed := [model for model in ordered(found) if found[model]["failed"]]:
            parts.append(f"{crystal} could not be computed with {names(failed)}")
    return f"To doubt: {'; '.join(parts)}." if parts else ""
