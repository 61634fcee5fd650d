"""What the page of a study says."""

from __future__ import annotations

from pathlib import Path

import pytest

from pretrain_mlip.errors import InputError
from pretrain_mlip.report.study import Row, StudyResults, Trial, study_verdict, system_table, write_study_report


def row(strategy: str, forces: list[float | None], alive: int | None = None, system: str = "salt") -> Row:
    heat = (
        None if alive is None else Trial(replicas=4, alive=alive, median_ps=0.5 if alive < 2 else None, duration_ps=1)
    )
    energy = [None if value is None else value / 10 for value in forces]
    return Row(system=system, model="cgcnn", strategy=strategy, forces_mae=forces, energy_mae=energy, heat=heat)


ROWS = [
    row("eam", [200.0, 200.0], 4),
    row("vanilla", [100.0, 120.0], 1),
    row("finetune", [80.0, 90.0], 3),
    row("vanilla", [50.0], None, "metal"),
    row("finetune", [60.0], None, "metal"),
]


def test_verdict_counts_cases_and_replicas() -> None:
    assert study_verdict(ROWS) == [
        "finetune survives best: 3 of 4 heated replicas reached the end.",
        "EAM: force MAE 1.82 of vanilla's, lower in 0 of 1 cases; 4 of 4 heated replicas alive.",
        "vanilla: 1 of 4 heated replicas alive.",
        "finetune: force MAE 0.77 to 1.20 (median 0.99) of vanilla's, lower in 1 of 2 cases; 3 of 4 heated replicas "
        "alive.",
    ]


def test_verdict_on_several_survivors_and_on_none() -> None:
    several = [*ROWS, row("delta", [70.0, 75.0], 3), row("delta", [55.0], None, "metal")]
    assert study_verdict(several)[0] == (
        "finetune and delta survive best: 3 of 4 heated replicas reached the end with each. Of these delta has the "
        "lowest force errors."
    )
    alike = [row("vanilla", [100.0], 4), row("finetune", [90.0], 4)]
    assert study_verdict(alike)[0] == "vanilla: 4 of 4 heated replicas alive."


def test_table_of_a_system() -> None:
    texts = [[cell.text for cell in line] for line in system_table(ROWS, "salt").rows]
    assert texts == [
        ["cgcnn", "EAM", "200 ± 0", "1.82", "20.0 ± 0.0", "> 1", "4 of 4", "–", "–"],
        ["cgcnn", "vanilla", "110 ± 14", "1.00", "11.0 ± 1.4", "0.50", "1 of 4", "–", "–"],
        ["cgcnn", "finetune", "85.0 ± 7.1", "0.77", "8.50 ± 0.71", "> 1", "3 of 4", "–", "–"],
    ]


def test_page_and_its_results(tmp_path: Path) -> None:
    StudyResults(title="a study", rows=[*ROWS, row("delta", [None, 70.0])]).write(tmp_path)
    page = write_study_report(tmp_path).read_text()
    drawings = page.split("<svg")[1:]
    assert len(drawings) == 2
    for drawing in drawings:  # a bar and its dots for each of two systems, which the page's buttons can hide
        assert drawing[: drawing.index("</svg>")].count('<g data-model="finetune">') == 4
    assert "a study" in page
    assert StudyResults.read(tmp_path).rows[-1].forces_mae == [None, 70.0]


def test_results_of_something_else_are_refused(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"format_version": 1, "rows": [{"system": "x"}]}')
    with pytest.raises(InputError, match=r"results\.json: 'rows\.0\.model'"):
        write_study_report(tmp_path)
    (tmp_path / "results.json").write_text('{"format_version": 2, "rows": []}')
    with pytest.raises(InputError, match="format_version 2 is not 1"):
        write_study_report(tmp_path)
