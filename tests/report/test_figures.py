from __future__ import annotations

import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
from fake_results import fake_results

from pretrain_mlip.report import curves, figures
from pretrain_mlip.report.style import COLOURS, colour, distinct_colours, ordered, save

RESULTS = fake_results().model_dump(mode="json")


def test_settings_of_others_are_left_alone():
    before = dict(mpl.rcParams)
    figures.survival(RESULTS["survival"])
    assert dict(mpl.rcParams) == before


def test_pyplot_is_never_loaded():
    code = (
        "import sys, pretrain_mlip.report.html; sys.exit('matplotlib.pyplot' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_model_has_one_colour_everywhere():
    assert len(set(COLOURS.values())) == len(COLOURS)
    assert colour("finetune-replay") == COLOURS["replay"]
    assert colour("my own idea") == colour("my own idea")
    assert ordered(["zeta", "delta", "vanilla", "eam"]) == ["eam", "vanilla", "delta", "zeta"]


def test_survival_steps_hold_their_value_to_the_end():
    (axes,) = figures.survival(RESULTS["survival"]).axes
    lines = {line.get_label().split()[0]: line for line in axes.lines if not line.get_label().startswith("_")}
    fraction = RESULTS["survival"]["finetune"]["curve"]["fraction"][-1]
    assert lines["finetune"].get_xdata()[-1] == 3.0
    assert lines["finetune"].get_ydata()[-1] == pytest.approx(fraction, abs=0.03)  # lifted by a hair
    assert lines["vanilla"].get_color() == COLOURS["vanilla"]


def test_dimers_mark_the_closest_distance_of_the_data():
    figure = curves.dimers(RESULTS["dimers"], {"O-O": 1.47})
    marked = [[line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":"] for axes in figure.axes]
    assert marked == [[1.47], [], []]


def test_what_was_only_pretrained_is_a_level_in_the_learning_curves():
    figure = figures.learning(RESULTS["learning"])
    level = next(line for line in figure.axes[0].lines if line.get_label() == "pretrain (last, on labels of the EAM)")
    assert len(set(level.get_ydata())) == 1


def test_missing_points_do_not_break_a_curve():
    section = {"vanilla": {"O-O": {"r": [0.5, 1.0, 2.0], "energy": [None, None, None], "force": []}}}
    assert curves.dimers(section).axes


def test_png_is_small(tmp_path):
    save(figures.temperatures(RESULTS["survival"]), tmp_path / "a.png")
    assert 5_000 < (tmp_path / "a.png").stat().st_size < 250_000


def test_parity_axes_are_common_and_count_what_falls_outside():
    points = {"reference": [0.0, 1.0], "predicted": [0.0, 50.0]}
    figure = figures.parity({"vanilla": {"forces": points}, "delta": {"forces": points}}, "forces")
    assert figure.axes[0].get_xlim() == figure.axes[1].get_ylim()
    assert "1 outside" in figure.axes[0].texts[0].get_text()
    assert np.diff(figure.axes[0].get_xlim())[0] < 2


def test_unknown_names_have_colours_of_their_own() -> None:
    names = ["eam", "a-finetune", "b-finetune", "mace", "chgnet", "vanilla", "sevennet"]
    with distinct_colours(names):
        found = {name: colour(name) for name in names}
    assert len(set(found.values())) == len(names)
    assert (found["eam"], found["vanilla"]) == (COLOURS["eam"], COLOURS["vanilla"])
    assert COLOURS["dft"] not in found.values()
    assert colour("a-finetune") == COLOURS["finetune"]  # as before
