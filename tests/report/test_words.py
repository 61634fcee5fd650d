from __future__ import annotations

import pytest
from fake_results import fake_results

from pretrain_mlip.report import crystals, words

RESULTS = fake_results().model_dump(mode="json")
SPACE = "\N{NO-BREAK SPACE}"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.0, "0"), (15.0, "15.0"), (9.38, "9.38"), (216.6, "217"), (1340.0, "1,340"), (-0.05, "-0.0500")],
)
def test_numbers_have_three_digits(value, text):
    assert words.number(value) == text


def test_a_loss_is_called_a_loss():
    assert words.change(3.0, 2.0) == f"50{SPACE}% higher"
    assert words.change(2.0, 2.0) == "unchanged"


def test_median_of_a_model_that_mostly_survives_is_a_bound():
    assert words.median({"median_ps": None, "duration_ps": 3.0}) == "> 3.00"


def test_survival_caption_names_survivors_and_losers():
    text = words.survival_caption(RESULTS["survival"])
    assert "Every run of EAM and delta reached 3 ps." in text
    assert "No run of vanilla did." in text
    assert "p <" in text or "p =" in text


def test_log_rank_of_two_models_without_failures_is_undefined():
    section = {"vanilla": RESULTS["survival"]["delta"], "finetune": RESULTS["survival"]["delta"]}
    assert "p undefined" in words.survival_caption(section)


def test_ties_are_shared():
    section = {"mae": {"a": {"total": 0.1}, "b": {"total": 0.1}}, "reference": None, "description": ""}
    assert "a and b" in words.rdf_caption(section)


def test_nothing_to_compare_says_nothing():
    assert words.protagonists({"eam": {}, "vanilla": {}}) is None


def test_learning_says_whose_validation_frames_are_not_dft():
    learning = RESULTS["learning"]
    assert "Those of pretrain are perturbed structures with labels of the EAM." in words.learning_caption(learning)
    dft_alone = {name: entry for name, entry in learning.items() if name != "pretrain"}
    assert "EAM" not in words.learning_caption(dft_alone).split("meV/Å.")[-1]
    assert "DFT" not in words.learning_caption({"pretrain": learning["pretrain"]})


def test_failed_checks_are_told_in_words():
    text = words.verification_text(RESULTS["verification"])
    assert text.startswith("vanilla fails objectivity (mandatory): turned.")
    assert "EAM 2e-06, vanilla 2e-06" in text
    sound = {"eam": RESULTS["verification"]["eam"]}
    assert words.verification_text(sound).startswith("All models pass every mandatory check.")


def test_phonons_that_are_drawn_together():
    (drawn,) = crystals.by_path(RESULTS["phonons"]["quartz"])
    assert "pretrain" not in drawn
    text = words.phonons_caption("quartz", drawn)
    assert "no imaginary mode with EAM, finetune and delta." in text
    assert "Imaginary modes, drawn below zero, with vanilla." in text
    assert text.endswith("Beneath each: those of the EAM.")
    others = {**drawn, "eam": drawn["eam"] | {"bands": drawn["eam"]["bands"][:1]}}
    together, apart = sorted(crystals.by_path(others), key=len, reverse=True)
    assert list(apart) == ["eam"]
    assert "EAM" not in words.phonons_caption("quartz", together)
