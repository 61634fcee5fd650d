from __future__ import annotations

import json

import pytest
from fake_results import fake_results
from pydantic import ValidationError

from pretrain_mlip.errors import InputError
from pretrain_mlip.report.results import Results


def test_file_round_trips_and_is_strict_json(tmp_path):
    results = fake_results()
    path = results.write(tmp_path)
    assert path.name == "results.json"
    assert "NaN" not in path.read_text()
    again = Results.read(tmp_path)
    assert again.dimers["vanilla"]["O-Si"].energy[0] is None  # was NaN
    assert again.errors == results.errors
    assert again.survival == results.survival
    assert again.provenance == results.provenance


def test_sections_that_were_not_made_are_absent_from_the_file(tmp_path):
    path = Results(title="only a title").write(tmp_path)
    assert json.loads(path.read_text()) == {"format_version": 1, "title": "only a title"}


def test_empty_values_inside_a_section_stay(tmp_path):
    results = Results(dimer_metrics={"eam": {"O-O": {"wall_0.5": None}}})
    assert json.loads(results.write(tmp_path).read_text())["dimer_metrics"]["eam"]["O-O"] == {"wall_0.5": None}


def test_misspelt_keys_are_errors():
    with pytest.raises(ValidationError, match="surival"):
        Results.model_validate({"surival": {}})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("[1]", "format_version None"),
        ('{"format_version": 99}', "format_version 99"),
        ('{"format_version": 1, "splits": {"train": "many"}}', "splits.train"),
    ],
)
def test_unreadable_files_are_input_errors(tmp_path, content, message):
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(InputError, match=message):
        Results.read(tmp_path)


def test_every_field_of_the_file_is_described():
    for name, field in Results.model_fields.items():
        kind = str(field.annotation)
        assert field.description or "report.results" in kind or name in ("format_version", "splits"), name
