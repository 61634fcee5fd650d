"""Results of a stability campaign, and its page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pretrain_mlip.dynamics.kaplan_meier import logrank
from pretrain_mlip.report.html import provenance_part, survival_part
from pretrain_mlip.report.page import Part, write_page
from pretrain_mlip.report.results import Provenance, ResultsFile, Section, Survival
from pretrain_mlip.report.style import distinct_colours, ordered
from pretrain_mlip.report.words import alive_of, interval, lives, names, p_value

if TYPE_CHECKING:
    import os


class StabilityTrial(Section):
    """One protocol at one temperature, all potentials."""

    description: str = Field(description="The run in words.")
    md: dict[str, Any] = Field(description="Settings of the run.")
    failure: dict[str, Any] = Field(description="When a replica failed.")
    structures: list[str] = Field(description="What replicas start from.")
    baseline: str = Field(description="The potential that the others are compared with.")
    survival: dict[str, Survival] = Field(description="Potential -> what became of its replicas.")
    logrank: dict[str, float | None] = Field(
        default_factory=dict,
        description="Potential -> p value of the log-rank test against the baseline; null where nothing failed.",
    )


class StabilityResults(ResultsFile):
    """results.json of a stability campaign."""

    kind: Literal["stability"] = "stability"
    provenance: Provenance
    trials: dict[str, StabilityTrial]


def logrank_table(sections: Mapping[str, Any], baseline: str) -> dict[str, float | None]:
    """P value of each potential but the baseline; sections as ``survival_section`` gives them."""
    return {
        name: logrank(*lives(section), *lives(sections[baseline]))
        for name, section in sections.items()
        if name != baseline
    }


def tells_nothing(survival: Mapping[str, Any]) -> str:
    """Why a trial cannot tell potentials apart; empty where it can."""
    stable = [entry["summary"]["stable_fraction"] for entry in survival.values()]
    if all(share == 1.0 for share in stable):
        return "every replica of every potential reached the end: make the run longer, hotter or denser"
    if all(share == 0.0 for share in stable):
        return "no replica of any potential reached the end: only the times of failure tell; make the run milder"
    return ""


def write_stability_report(folder: str | os.PathLike[str]) -> Path:
    """Write report.html of a campaign from its results.json.

    Raises:
        InputError: results.json is missing or not that of a campaign.
    """
    results = StabilityResults.read(folder).model_dump(mode="json")
    potentials = list(dict.fromkeys(name for trial in results["trials"].values() for name in trial["survival"]))
    with distinct_colours(potentials):
        return write_page(
            Path(folder),
            title=results["title"] or "Stability in molecular dynamics",
            subtitle=f"{', '.join(potentials)} · {results['provenance']['created'][:10]}",
            verdict=[verdict(name, trial) for name, trial in results["trials"].items()],
            parts=[
                *(_part(name, trial) for name, trial in results["trials"].items()),
                provenance_part(results["provenance"]),
            ],
        )


def lived(entry: Mapping[str, Any]) -> str:
    """How many replicas of a potential reached the end, and what that says of others."""
    alive, replicas = alive_of(entry)
    return f"{alive} of {replicas} ({interval(alive, replicas)})"


def _part(name: str, trial: Mapping[str, Any]) -> Part:
    text = f"{trial['description']} Starts: {'; '.join(trial['structures'])}."
    if flaw := tells_nothing(trial["survival"]):
        text += f" WARNING: this tells nothing about which is better: {flaw}."
    title = name.replace("_", " ")
    against = (trial["baseline"], trial["logrank"])
    return survival_part(trial["survival"], name, title[0].upper() + title[1:], text, against)


def verdict(name: str, trial: Mapping[str, Any]) -> str:
    """Who survives a trial, and whether that is more than chance."""
    survival, baseline = trial["survival"], trial["baseline"]
    name = name.replace("_", " ")
    if flaw := tells_nothing(survival):
        return f"{name}: tells nothing, {flaw}."
    shares = [f"{names([model])} {lived(survival[model])}" for model in ordered(survival)]
    text = f"{name}: replicas that reached the end (95\N{NO-BREAK SPACE}% confidence): {', '.join(shares)}."
    tests = [f"{names([model])} {p_value(p)}" for model, p in trial["logrank"].items()]
    return text + (f" Log-rank p against {names([baseline])}: {', '.join(tests)}." if tests else "")
