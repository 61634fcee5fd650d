"""Tables of the page on the study, from docs/study/results.json; the page includes them."""

from __future__ import annotations

from pathlib import Path

from markdown import page, table

from pretrain_mlip.report.study import StudyResults, study_verdict, system_table

FOLDER = Path(__file__).parents[1] / "study"


def study_tables() -> str:
    """What the study came to in sentences, and a table for every system."""
    rows = StudyResults.read(FOLDER).rows
    blocks = ["\n".join(f"- {sentence}" for sentence in study_verdict(rows)) + "\n"]
    for system in dict.fromkeys(row.system for row in rows):
        made = system_table(rows, system)
        lines = [[cell.text for cell in line] for line in made.rows]
        narrow = [place for place, name in enumerate(made.columns) if "median" not in name]  # the report has medians
        headings = [made.columns[place] for place in narrow[:-2]] + ["alive, heated", "alive, squeezed"]
        blocks += [f"### {system}\n", table(headings, [[line[place] for place in narrow] for line in lines])]
    return page(*blocks)
