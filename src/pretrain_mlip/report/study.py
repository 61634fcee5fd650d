"""Results of a study, and its page: one row for every system, architecture and strategy."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pretrain_mlip.report.page import Part, Picture, write_page
from pretrain_mlip.report.results import Results, ResultsFile, Section
from pretrain_mlip.report.style import colour, display_name, legend_above, marked, ordered, panels, styled
from pretrain_mlip.report.tables import Cell, Table, model_cell
from pretrain_mlip.report.words import BASELINE, MISSING, best_of, names, number

if TYPE_CHECKING:
    import os

    from matplotlib.figure import Figure

QUANTITIES = {"forces_mae": "force MAE (meV/Å)", "energy_mae": "energy MAE (meV/atom)"}
TRIALS = {"heat": "heated", "squeeze": "squeezed"}


class Trial(Section):
    """Replicas of one potential in one kind of MD, all seeds together."""

    replicas: int
    alive: int = Field(description="Replicas that reached the end.")
    median_ps: float | None = Field(default=None, description="null when more than half survive.")
    duration_ps: float


class Row(Section):
    """One potential: errors on test frames for every seed, and survival."""

    system: str
    model: str = Field(description="Name of the architecture in the study.")
    strategy: str = Field(description="'eam' for the teacher.")
    forces_mae: list[float | None] = Field(description="meV/Å, of each seed.")
    energy_mae: list[float | None] = Field(description="meV/atom, of each seed.")
    heat: Trial | None = None
    squeeze: Trial | None = None


class StudyResults(ResultsFile):
    """results.json of a study."""

    kind: Literal["study"] = "study"
    rows: list[Row]
    made_with: dict[str, str] = Field(
        default_factory=dict, description="SHA-256 of the settings that the rows of <system>/<model> depend on."
    )
    config: dict[str, Any] = Field(default_factory=dict, description="The study's configuration, as it was written.")


def rows_of(system: str, model: str, results: Results) -> list[Row]:
    """What a study keeps of a run, of one seed or several."""
    rows = []
    for strategy, errors in (results.errors or {}).items():
        seeds = (results.seed_errors or {}).get(strategy) or [errors["all"]]
        rows.append(
            Row(
                system=system,
                model=model,
                strategy=strategy,
                forces_mae=[seed.forces_mae for seed in seeds],
                energy_mae=[seed.energy_mae for seed in seeds],
                heat=_trial(results.survival, strategy),
                squeeze=_trial(results.squeeze, strategy),
            )
        )
    return rows


def _trial(section: Mapping[str, Any] | None, strategy: str) -> Trial | None:
    if section is None or strategy not in section:
        return None
    summary = section[strategy].summary
    return Trial(
        replicas=summary.replicas,
        alive=round(summary.stable_fraction * summary.replicas),
        median_ps=summary.median_ps,
        duration_ps=summary.duration_ps,
    )


def write_study_report(folder: str | os.PathLike[str]) -> Path:
    """Write report.html of a study from its results.json.

    Raises:
        InputError: results.json is missing or not that of a study.
    """
    results = StudyResults.read(folder)
    seeds = max((len(row.forces_mae) for row in results.rows), default=0)
    systems = list(dict.fromkeys(row.system for row in results.rows))
    models = list(dict.fromkeys(row.model for row in results.rows))
    subtitle = f"{', '.join(systems)} · {', '.join(models)} · {seeds} seed{'s' if seeds > 1 else ''}"
    parts = []
    for key, label in QUANTITIES.items():
        caption = f"Bars: mean over seeds of the {label.split(' (')[0]} on test structures; dots: each seed."
        parts.append(
            Part(label[0].upper() + label[1:], pictures=[Picture(key, bars(results.rows, key), caption, caption)])
        )
    parts += [Part(system, tables=[system_table(results.rows, system)]) for system in systems]
    return write_page(
        Path(folder),
        title=results.title or "Study",
        subtitle=subtitle,
        verdict=study_verdict(results.rows),
        parts=parts,
    )


def study_verdict(rows: Sequence[Row]) -> list[str]:
    """Who survives; then who is better than plain training, in how many of the cases and by how much."""
    strategies = ordered({row.strategy for row in rows} - {"pretrain"})
    ratios_of = {strategy: _ratios(rows, strategy) for strategy in strategies}
    sentences = _survivors(rows, ratios_of)
    for strategy in strategies:
        parts = []
        ratios = ratios_of[strategy]
        if ratios and strategy != BASELINE:
            better = sum(ratio < 1 for ratio in ratios)
            span = f"{min(ratios):.2f}"
            if len(ratios) > 1:
                span += f" to {max(ratios):.2f} (median {statistics.median(ratios):.2f})"
            parts.append(f"force MAE {span} of {BASELINE}'s, lower in {better} of {len(ratios)} cases")
        for kind, word in TRIALS.items():
            alive, replicas = _alive(rows, strategy, kind)
            if replicas:
                parts.append(f"{alive} of {replicas} {word} replicas alive")
        if parts:
            sentences.append(f"{display_name(strategy)}: {'; '.join(parts)}.")
    return sentences


def _survivors(rows: Sequence[Row], ratios: Mapping[str, Sequence[float]]) -> list[str]:
    """The trained strategies most of whose replicas lived, of several that with the lowest force errors."""
    totals = {
        strategy: tuple(map(sum, zip(*(_alive(rows, strategy, kind) for kind in TRIALS), strict=True)))
        for strategy in ratios
        if strategy != "eam"
    }
    shares = {strategy: alive / replicas for strategy, (alive, replicas) in totals.items() if replicas}
    if len(set(shares.values())) < 2:
        return []
    best = best_of(shares)
    alive, replicas = totals[best[0]]
    kinds = [word for kind, word in TRIALS.items() if any(getattr(row, kind) for row in rows)]
    sentence = (
        f"{names(best)} survive{'s' if len(best) == 1 else ''} best: {alive} of {replicas} {' and '.join(kinds)} "
        f"replicas reached the end{'' if len(best) == 1 else ' with each'}."
    )
    known = {strategy: statistics.median(ratios[strategy]) for strategy in best if ratios[strategy]}
    if len(best) > 1 and known:
        lowest = best_of(known, largest=False)
        sentence += f" Of these {names(lowest)} has the lowest force errors."
    return [sentence]


def _alive(rows: Sequence[Row], strategy: str, kind: str) -> tuple[int, int]:
    """Replicas of a strategy that reached the end of one kind of MD in all cases, and replicas."""
    found = [trial for row in rows if row.strategy == strategy for trial in [getattr(row, kind)] if trial]
    return sum(trial.alive for trial in found), sum(trial.replicas for trial in found)


def _ratios(rows: Sequence[Row], strategy: str) -> list[float]:
    """Force errors over those of plain training, of every system and architecture that has both."""
    cases = dict.fromkeys((row.system, row.model) for row in rows)
    by_case = [{row.strategy: row for row in rows if (row.system, row.model) == case} for case in cases]
    return [ratio for found in by_case if (ratio := _ratio(found, strategy)) is not None]


def system_table(rows: Sequence[Row], system: str) -> Table:
    """Errors with their spread, and survival, of all potentials of a system."""
    mine = [row for row in rows if row.system == system]
    cells = []
    for model in dict.fromkeys(row.model for row in mine):
        of_model = {row.strategy: row for row in mine if row.model == model}
        for strategy in ordered(of_model):
            row = of_model[strategy]
            ratio = _ratio(of_model, strategy)
            cells.append(
                [
                    Cell(model),
                    model_cell(strategy),
                    Cell(_mean_and_spread(row.forces_mae)),
                    Cell(MISSING if ratio is None else f"{ratio:.2f}"),
                    Cell(_mean_and_spread(row.energy_mae)),
                    *_trial_cells(row.heat),
                    *_trial_cells(row.squeeze),
                ]
            )
    columns = ["architecture", "model", *QUANTITIES.values()]
    columns.insert(3, f"of {BASELINE}'s")
    columns += ["heated: median (ps)", "alive", "squeezed: median (ps)", "alive"]
    return Table(columns, cells, "Mean over seeds ± standard deviation (one degree of freedom taken off).")


@styled
def bars(rows: Sequence[Row], key: str) -> Figure:
    """Mean errors of the trained strategies, a panel per system, a group per architecture."""
    systems = list(dict.fromkeys(row.system for row in rows))
    figure, axes = panels(len(systems), height=3.0)
    for panel, system in zip(axes, systems, strict=True):
        mine = [row for row in rows if row.system == system and row.strategy != "pretrain"]
        models = list(dict.fromkeys(row.model for row in mine))
        strategies = ordered({row.strategy for row in mine})
        width = 0.8 / len(strategies)
        for row in mine:
            values = [value for value in getattr(row, key) if value is not None]
            if not values:
                continue
            place = models.index(row.model) + (strategies.index(row.strategy) - 0.5 * (len(strategies) - 1)) * width
            mark = marked(row.strategy)
            panel.bar(place, statistics.fmean(values), 0.92 * width, color=colour(row.strategy), gid=mark)
            panel.plot([place] * len(values), values, "o", ms=2.5, color="#1d2329", zorder=3, gid=mark)
        panel.set_xticks(range(len(models)), models)
        panel.grid(visible=False, axis="x")
        panel.set_title(system)
        panel.set_ylabel(QUANTITIES[key])
    for strategy in ordered({row.strategy for row in rows} - {"pretrain"}):
        axes[0].bar([0], [0], color=colour(strategy), label=display_name(strategy))
    legend_above(figure, axes[0])
    return figure


def _ratio(of_model: Mapping[str, Row], strategy: str) -> float | None:
    """Mean force error over that of plain training."""
    if BASELINE not in of_model or strategy not in of_model:
        return None
    mine, theirs = (_mean(of_model[name].forces_mae) for name in (strategy, BASELINE))
    return mine / theirs if mine is not None and theirs else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _mean_and_spread(values: Sequence[float | None]) -> str:
    """Both to the decimals of the mean."""
    known = [value for value in values if value is not None]
    mean = number(_mean(known))
    if len(known) < 2:
        return mean
    return f"{mean} ± {statistics.stdev(known):.{len(mean.partition('.')[2])}f}"


def _trial_cells(trial: Trial | None) -> list[Cell]:
    if trial is None:
        return [Cell(MISSING), Cell(MISSING)]
    median = f"> {trial.duration_ps:g}" if trial.median_ps is None else f"{trial.median_ps:.2f}"
    return [Cell(median), Cell(f"{trial.alive} of {trial.replicas}")]
