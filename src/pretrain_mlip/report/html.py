"""The report of a run, from its results.json and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pretrain_mlip.report import crystals, curves, figures, tables, words
from pretrain_mlip.report.page import Part, Picture, write_page
from pretrain_mlip.report.results import Results
from pretrain_mlip.report.sites import failure_sites, first_failures
from pretrain_mlip.report.verdict import verdict

if TYPE_CHECKING:
    import os

Data = Mapping[str, Any]


def write_report(run_dir: str | os.PathLike[str]) -> Path:
    """Draw the figures of a run and write report.html; sections that results.json lacks are left out with a note.

    Args:
        run_dir: folder with results.json; figures/ and report.html are written into it.

    Returns:
        Path of the report.

    Raises:
        InputError: results.json is missing or not in the known format.
    """
    run_dir = Path(run_dir)
    results = Results.read(run_dir).model_dump(mode="json")
    parts, missing = [], []
    for name, build in PARTS.items():
        part = build(results)
        if part is None:
            missing.append(name)
        else:
            parts.append(part)
    return write_page(
        run_dir,
        title=results["title"] or "Pretrained interatomic potential",
        subtitle=_subtitle(results),
        verdict=verdict(results),
        verdict_table=tables.verdict_table(results),
        parts=parts,
        missing=missing,
    )


def _subtitle(results: Data) -> str:
    dataset, splits = results["dataset"], results["splits"]
    pieces = []
    if dataset:
        pieces.append(f"{dataset['name']}: {dataset['frames']:,} DFT frames of {', '.join(dataset['elements'])}")
        if dataset["pretraining_frames"]:
            pieces.append(f"{dataset['pretraining_frames']:,} pretraining structures")
    if splits:
        pieces.append(" / ".join(f"{count} {split}" for split, count in splits.items()))
    if results["provenance"]:
        pieces.append(results["provenance"]["created"][:10])
    return " · ".join(pieces)


def survival_part(section: Data, name: str, title: str, text: str, against: tuple[str, Data] | None = None) -> Part:
    """Curves, temperatures, first failures and statistics of MD.

    Args:
        section: ``survival`` or ``squeeze`` of results.json.
        name: of its pictures.
        title: of the part.
        text: beneath it.
        against: the potential that the others are compared with, and their p values.
    """
    caption = words.survival_caption(section)
    pictures = [
        Picture(name, figures.survival(section), f"Survival curves. {caption}", caption),
        Picture(
            f"{name}_temperature",
            figures.temperatures(section),
            "Temperature of every MD replica against time, a panel per model.",
            words.failures_caption(section),
            points=True,
        ),
    ]
    if failed := first_failures(section):
        drawn = words.sites_caption(failed)
        pictures.append(
            Picture(f"{name}_failures", failure_sites(failed), f"First failures. {drawn}", drawn, points=True)
        )
    return Part(title, text, pictures, [tables.survival_table(section, against)])


def _heating(results: Data) -> Part | None:
    text = "Every model ran the same replicas: equal structures, velocities and noise. A run ends at its first failure."
    section = results["survival"]
    return survival_part(section, "survival", "Survival in molecular dynamics", text) if section else None


def _squeeze(results: Data) -> Part | None:
    text = "The same while the cell shrinks, which brings atoms closer than thermal motion does."
    section = results["squeeze"]
    return survival_part(section, "squeeze", "Survival under compression", text) if section else None


def _errors(results: Data) -> Part | None:
    return (
        Part("Errors by kind of structure", tables=tables.error_tables(results["errors"]))
        if results["errors"]
        else None
    )


def _parity(results: Data) -> Part | None:
    section = results["parity"]
    if not section:
        return None
    pictures = [
        Picture(
            f"parity_{quantity}",
            figures.parity(section, quantity),
            f"Predicted against DFT {quantity}, a panel per model.",
            words.parity_caption(section, quantity),
            points=True,
        )
        for quantity in ("forces", "energy")
        if any(entry[quantity]["reference"] for entry in section.values())
    ]
    return Part("Predictions against DFT", pictures=pictures)


def _learning(results: Data) -> Part | None:
    section = results["learning"]
    if not section:
        return None
    picture = Picture(
        "learning",
        figures.learning(section),
        "Validation errors against gradient steps on DFT data.",
        words.learning_caption(section),
    )
    return Part("Learning curves", pictures=[picture])


def _dimers(results: Data) -> Part | None:
    section, metrics = results["dimers"], results["dimer_metrics"]
    if not section:
        return None
    closest = results["dataset"]["closest"] if results["dataset"] else {}
    caption = words.dimers_caption(metrics)
    picture = Picture("dimers", curves.dimers(section, closest), f"Dimer curves. {caption}", caption)
    return Part("Two atoms alone", pictures=[picture], tables=[tables.dimer_table(metrics)] if metrics else [])


def _eam(results: Data) -> Part | None:
    fit, parts = results["eam"], results["eam_decomposition"]
    if not fit and not parts:
        return None
    pictures, shown, text = [], [], ""
    if fit:
        facts = [f"cutoff {fit['cutoff']:g} Å", fit["form"], f"pairs {', '.join(fit['pairs'])}"]
        if fit["parameters"]:
            facts.append(f"{fit['parameters']} parameters")
        text = f"The teacher: {'; '.join(fact for fact in facts if fact)}."
        attracting = [pair for pair, repulsive in fit["repulsive"].items() if not repulsive]
        if attracting:
            text += f" WARNING: {', '.join(attracting)} does not repel everywhere inside contact."
        if fit["convergence"]:
            pictures.append(Picture("eam_fit", figures.eam_fit(fit), "Convergence of the EAM fit."))
        shown = [table for table in [tables.eam_table(fit)] if table]
    if parts:
        caption = "Energy of an isolated pair in the EAM and its parts, each relative to separated atoms."
        pictures.append(Picture("eam_decomposition", curves.eam_decomposition(parts), caption, caption))
    return Part("The embedded-atom potential", text, pictures, shown)


def _rdf(results: Data) -> Part | None:
    section = results["rdf"]
    if not section or not (section["models"] or section["reference"]):
        return None
    caption = words.rdf_caption(section)
    picture = Picture("rdf", curves.rdf(section), f"Radial distribution functions. {caption}", caption)
    table = tables.rdf_table(section)
    return Part("Structure of the liquid and the solid", pictures=[picture], tables=[table] if table else [])


def _phonons(results: Data) -> Part | None:
    section = results["phonons"]
    if not section:
        return None
    pictures = []
    for crystal, found in section.items():
        for number, drawn in enumerate(crystals.by_path(found)):
            caption = words.phonons_caption(crystal, drawn)
            figure = crystals.compared_bands(drawn)
            name = f"phonons{number + 1 if number else ''}_{crystal}"
            pictures.append(Picture(name, figure, f"Phonon bands. {caption}", caption, points=True))
    return Part("Phonons", pictures=pictures, tables=[tables.phonon_table(section)])


def _verification(results: Data) -> Part | None:
    section = results["verification"]
    if not section:
        return None
    text = words.verification_text(section)
    return Part("Verification", text, tables=[tables.verification_table(section)])


def _distances(results: Data) -> Part | None:
    section = results["pair_distances"]
    if not section:
        return None
    caption = words.distances_caption(section)
    picture = Picture("pair_distances", curves.pair_distances(section), f"Pair distances. {caption}", caption)
    return Part("What the perturbation covers", pictures=[picture])


def _provenance(results: Data) -> Part | None:
    if not results["provenance"]:
        return None
    return provenance_part(results["provenance"], results["timings"], results["config"])


def provenance_part(origin: Data, timings: Data | None = None, config: Data | None = None) -> Part:
    """Versions, hardware, seeds, data, times and settings."""
    run = {"created": origin["created"], "command": origin["command"], "seeds": origin["seeds"], **origin["hardware"]}
    data = {
        file["path"]: ("" if file["frames"] is None else f"{file['frames']} frames, ") + f"sha256 {file['sha256']}"
        for file in origin["data"]
    }
    times = {stage: f"{seconds:,.1f} s" for stage, seconds in (timings or {}).items()}
    shown = [
        tables.key_values(run, "Run"),
        tables.key_values(data, "Data"),
        tables.key_values(origin["versions"], "Versions"),
        tables.key_values(times, "Times"),
    ]
    details = yaml.safe_dump(config, sort_keys=False, allow_unicode=True) if config else ""
    return Part("Provenance", tables=[table for table in shown if table], details=details)


PARTS: dict[str, Callable[[Data], Part | None]] = {
    "survival in MD": _heating,
    "survival under compression": _squeeze,
    "errors": _errors,
    "parity": _parity,
    "dimer curves": _dimers,
    "EAM": _eam,
    "radial distribution": _rdf,
    "phonons": _phonons,
    "verification": _verification,
    "learning curves": _learning,
    "pair distances": _distances,
    "provenance": _provenance,
}
