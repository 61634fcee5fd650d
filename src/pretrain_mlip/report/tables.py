"""The tables of the report: rows of cells, the best value of a column marked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pretrain_mlip.report.style import colour, display_name, ordered
from pretrain_mlip.report.words import MISSING, median, number, p_value, percent, spread

Data = Mapping[str, Any]


class Cell(NamedTuple):
    """One cell."""

    text: str
    best: bool = False
    swatch: str | None = None  # the colour of the model that the cell names
    model: str | None = None  # that model: the row is about it
    title: str = ""  # what more there is to say


@dataclass(frozen=True)
class Table:
    """A table; the first column is text, the others are numbers."""

    columns: list[str]
    rows: list[list[Cell]]
    caption: str = ""
    models: list[str] = field(default_factory=list)  # that the last columns are about

    def model_of(self, column: int) -> str | None:
        """The model that a column is about, counted from 0."""
        place = column - (len(self.columns) - len(self.models))
        return self.models[place] if place >= 0 else None


def model_cell(model: str) -> Cell:
    """The name of a model with its colour."""
    return Cell(display_name(model), swatch=colour(model), model=model)


def verdict_table(results: Data) -> Table | None:
    """One row per model with what decides: errors and survival."""
    errors, survival, squeeze = (results[key] or {} for key in ("errors", "survival", "squeeze"))
    models = ordered({**errors, **survival, **squeeze})
    if not models:
        return None
    columns: list[tuple[str, list[Cell]]] = []
    if errors:
        for key, label in (("forces_mae", "force MAE (meV/Å)"), ("energy_mae", "energy MAE (meV/atom)")):
            values = [errors.get(model, {}).get("all", {}).get(key) for model in models]
            spreads = [spread(results["seed_errors"], model, key) for model in models]
            cells = _ranked(values, number, largest=False)
            columns.append((label, [c._replace(text=c.text + s) for c, s in zip(cells, spreads, strict=True)]))
    for heading, section in (("", survival), ("squeezed: ", squeeze)):
        if section:
            summaries = [section[model]["summary"] if model in section else None for model in models]
            texts = [median(summary) if summary else MISSING for summary in summaries]
            columns.append((f"{heading}median survival (ps)", [Cell(text) for text in texts]))
            stable = [summary["stable_fraction"] if summary else None for summary in summaries]
            columns.append((f"{heading}runs completed", _ranked(stable, percent, largest=True)))
    rows = [[model_cell(model), *(cells[i] for _, cells in columns)] for i, model in enumerate(models)]
    caption = "Test frames (DFT) and MD. Bold: best of the column."
    seeds = max(map(len, (results["seed_errors"] or {}).values()), default=1)
    if seeds > 1:
        caption += (
            f" Mean ± standard deviation of {seeds} seeds, all of whose replicas are counted; checks and "
            "phonons are those of the worst seed, what is not of survival or of errors besides is that of the first."
        )
    return Table(["model", *(heading for heading, _ in columns)], rows, caption)


def survival_table(section: Data, against: tuple[str, Data] | None = None) -> Table:
    """Survival statistics of each model; with p values against one of them where they are given."""
    models = ordered(section)
    summaries = [section[model]["summary"] for model in models]
    areas = _ranked([s["area"] for s in summaries], lambda value: f"{value:.2f}", largest=True)
    rows = []
    for model, summary, area in zip(models, summaries, areas, strict=True):
        failures = ", ".join(f"{k.replace('_', ' ')} {n}" for k, n in summary["failures"].items()) or "none"
        rows.append(
            [
                model_cell(model),
                Cell(str(summary["replicas"])),
                Cell(median(summary)),
                Cell(f"{summary['mean_ps']:.2f}"),
                area,
                Cell(percent(summary["stable_fraction"])),
                *([Cell(_p_cell(model, against))] if against else []),
                Cell(failures),
            ]
        )
    columns = ["model", "runs", "median (ps)", "mean (ps)", "area", "completed", "failures by check"]
    if against:
        columns.insert(-1, f"p against {display_name(against[0])}")
    caption = (
        "Area: under the survival curve over the duration, 1 = every run completed. Mean: restricted to the duration."
    )
    return Table(columns, rows, caption)


def _p_cell(model: str, against: tuple[str, Data]) -> str:
    baseline, found = against
    return MISSING if model == baseline else p_value(found.get(model)).removeprefix("= ")


def error_tables(errors: Data) -> list[Table]:
    """One table per quantity: config_type by model."""
    quantities = {
        "forces_mae": "Force MAE (meV/Å)",
        "energy_mae": "Energy MAE (meV/atom)",
        "stress_mae": "Stress MAE (GPa)",
    }
    models = ordered(errors)
    kinds = list(dict.fromkeys(kind for model in models for kind in errors[model] if kind != "all"))
    tables = []
    for key, label in quantities.items():
        rows = []
        for kind in [*kinds, "all"]:
            values = [errors[model].get(kind, {}).get(key) for model in models]
            frames = next((errors[m][kind]["frames"] for m in models if kind in errors[m]), 0)
            if any(value is not None for value in values):
                rows.append([Cell(kind), Cell(str(frames)), *_ranked(values, number, largest=False)])
        if rows:
            heading = ["config_type", "frames", *(display_name(model) for model in models)]
            tables.append(Table(heading, rows, f"{label} on test frames.", models))
    return tables


def dimer_table(metrics: Data) -> Table:
    """Wall heights and soundness of each pair and model."""
    rows = []
    pairs = sorted({pair for values in metrics.values() for pair in values})
    for pair in pairs:
        for model in (m for m in ordered(metrics) if pair in metrics[m]):
            values = metrics[model][pair]
            repulsive = values.get("repulsive_at_contact")
            rows.append(
                [
                    Cell(pair),
                    model_cell(model),
                    Cell(number(values.get("wall_0.5"))),
                    Cell(number(values.get("wall_1.0"))),
                    Cell(MISSING if repulsive is None else "yes" if repulsive else "NO"),
                    Cell(MISSING if values.get("turning_points") is None else str(values["turning_points"])),
                    Cell(f"{number(values.get('well_depth'))} at {number(values.get('well_distance'))}"),
                ]
            )
    columns = [
        "pair",
        "model",
        "E(0.5 Å) (eV)",
        "E(1.0 Å) (eV)",
        "repels inside contact",
        "turning points",
        "well (eV, Å)",
    ]
    return Table(
        columns,
        rows,
        "Energies relative to the largest distance. Turning points of the curve inside contact: none in a sound wall.",
    )


def eam_table(section: Data) -> Table | None:
    """Errors of the EAM fit."""
    if not section["errors"]:
        return None
    keys = {
        "energy_rmse": "energy RMSE (meV/atom)",
        "forces_mae": "force MAE (meV/Å)",
        "forces_rmse": "force RMSE (meV/Å)",
        "forces_rms_reference": "RMS force (meV/Å)",
    }
    rows = [
        [Cell(name), Cell(str(row["frames"])), *(Cell(number(row[key])) for key in keys)]
        for name, row in section["errors"].items()
    ]
    return Table(["frames of", "frames", *keys.values()], rows, "baseline: one constant energy per element, no forces.")


def rdf_table(section: Data) -> Table | None:
    """Mean absolute differences of g(r) from the reference."""
    mae = section["mae"]
    if not mae:
        return None
    models = ordered(mae)
    names = list(dict.fromkeys(name for model in models for name in mae[model]))
    ranked = [
        _ranked([mae[m].get(name) for m in models], lambda value: f"{value:.3f}", largest=False) for name in names
    ]
    rows = []
    for i, model in enumerate(models):
        errors = [section["mae_errors"].get(model, {}).get(name) for name in names]
        spreads = ["" if error is None else f" ± {error:.3f}" for error in errors]
        cells = [column[i]._replace(text=column[i].text + s) for column, s in zip(ranked, spreads, strict=True)]
        rows.append([model_cell(model), *cells])
    caption = "Mean absolute deviation of g(r) from DFT ± its standard error, by averages over blocks of frames."
    return Table(["model", *names], rows, caption)


def verification_table(section: Data) -> Table:
    """Grades: checks by models."""
    models = ordered(section)
    kinds = {name: row["category"] for model in models for name, row in section[model].items()}
    rows = [
        [Cell(name), Cell(kind), *(_grade(section[model].get(name)) for model in models)]
        for name, kind in kinds.items()
    ]
    caption = (
        "P passed, F failed, – does not apply. A to D: error of a derivative against differences of the energy, A if"
        " below 3e7 times the rounding of float64. A model that fails a mandatory check should not be used."
    )
    return Table(["check", "", *map(display_name, models)], rows, caption, models)


def _grade(row: Data | None) -> Cell:
    if row is None:
        return Cell(MISSING)
    grade = MISSING if row["grade"] == "-" else row["grade"]
    return Cell(
        f"{grade} ({row['error']:.0e})" if grade in "ABCD" and row["error"] is not None else grade, title=row["detail"]
    )


def phonon_table(section: Data) -> Table:
    """Frequencies that tell whether crystals are stable."""
    rows = []
    for crystal, found in section.items():
        for model in ordered(found):
            entry = found[model]
            told = entry["failed"] or ("YES" if entry["imaginary"] else "no")
            rows.append(
                [
                    Cell(crystal),
                    model_cell(model),
                    Cell(entry["space_group"] or MISSING),
                    Cell(MISSING if entry["lowest"] is None else f"{entry['lowest']:.3f}"),
                    Cell(MISSING if entry["acoustic_at_gamma"] is None else f"{entry['acoustic_at_gamma']:.3f}"),
                    Cell(told),
                ]
            )
    columns = ["crystal", "model", "space group", "lowest (THz)", "acoustic at Γ (THz)", "imaginary modes"]
    caption = "Relaxed by each model. The three acoustic frequencies at Γ are zero but for the size of displacements."
    return Table(columns, rows, caption)


def key_values(content: Mapping[str, object], caption: str = "") -> Table | None:
    """A table of two columns."""
    rows = [[Cell(str(key)), Cell(_plain(value))] for key, value in content.items() if value not in (None, "", {}, [])]
    return Table(["", ""], rows, caption) if rows else None


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return number(value) if isinstance(value, float) else str(value)


def _ranked(values: Sequence[float | None], write: Callable[[float], str], *, largest: bool) -> list[Cell]:
    known = [value for value in values if value is not None]
    best = (max(known) if largest else min(known)) if len(known) > 1 else None
    return [Cell(MISSING) if value is None else Cell(write(value), best=value == best) for value in values]
