from __future__ import annotations

from typing import Any

import pytest
from fake_results import fake_results
from scipy.stats import beta

from pretrain_mlip.report import words
from pretrain_mlip.report.results import Results
from pretrain_mlip.report.verdict import verdict

RESULTS = fake_results().model_dump(mode="json")
SPACE = "\N{NO-BREAK SPACE}"


def entry(alive: int, replicas: int = 4, area: float | None = None) -> dict[str, Any]:
    ends = ["completed"] * alive + ["failed"] * (replicas - alive)
    area = alive / replicas if area is None else area
    summary = {"median_ps": None if 2 * alive > replicas else 0.5, "duration_ps": 1.0, "area": area}
    return {"replicas": [{"outcome": end} for end in ends], "summary": summary}


def results(**sections: Any) -> dict[str, Any]:
    return Results().model_dump(mode="json") | sections


def test_the_survivor_comes_first_and_is_held_against_plain_training():
    sentences = verdict(RESULTS)
    heated, squeezed = (
        [
            sum(one["outcome"] == "completed" for one in RESULTS[section][model]["replicas"])
            for model in ("delta", "vanilla")
        ]
        for section in ("survival", "squeeze")
    )
    assert sentences[0] == (
        f"delta survives best: {heated[0]} of 8 heated and {squeezed[0]} of 8 squeezed replicas reached the end; "
        f"of vanilla, {heated[1]} of 8 and {squeezed[1]} of 8."
    )
    assert f"63 to 100{SPACE}% of heated" in sentences[1]
    assert f"force MAE 153 ± 6.2 against 217 ± 8.8 meV/Å (29{SPACE}% lower)" in sentences[2]
    assert any("Lowest force error of the trained models: delta (153 meV/Å)" in sentence for sentence in sentences)
    assert any(sentence.startswith("The EAM: 8 of 8 heated") for sentence in sentences)
    assert sentences[-1] == (
        "To doubt: vanilla fails objectivity; quartz has imaginary phonons with vanilla; quartz could not be computed "
        "with pretrain."
    )


def test_equal_survivors_are_named_together_the_most_accurate_first():
    errors = {
        model: {"all": {"forces_mae": value, "energy_mae": None}} for model, value in (("sam", 3.0), ("delta", 2.0))
    }
    found = verdict(results(errors=errors, survival={"sam": entry(4), "delta": entry(4), "vanilla": entry(1)}))
    assert found[0] == (
        "delta and SAM survive best: 4 of 4 heated replicas reached the end with each; of vanilla, 1 of 4."
    )
    assert found[1].endswith("delta has the lowest force error of these.")


def test_survival_that_tells_nothing_is_said_to():
    found = verdict(results(survival={"eam": entry(4), "vanilla": entry(4), "finetune": entry(4)}))
    assert found[0].startswith(
        "Survival tells no difference between the trained models: of each, 4 of 4 heated replicas"
    )


def test_when_all_die_who_lasts_longest_is_said():
    found = verdict(results(survival={"vanilla": entry(0, area=0.1), "finetune": entry(0, area=0.9)}))
    assert found[0] == "No replica of a trained model reached the end; those of finetune lasted longest."


def test_trials_that_disagree_are_not_called_equal():
    heat, squeeze = {"delta": entry(4), "vanilla": entry(2)}, {"delta": entry(0), "vanilla": entry(2)}
    found = verdict(results(survival=heat, squeeze=squeeze))
    assert " best: " in found[0]
    assert "no difference" not in " ".join(found)
    third = verdict(results(survival=heat | {"sam": entry(0)}, squeeze=squeeze | {"sam": entry(0)}))
    assert "with each" not in third[0]


def test_plain_training_may_win():
    found = verdict(results(survival={"vanilla": entry(3), "finetune": entry(1)}))
    assert found[0] == "vanilla survives best: 3 of 4 heated replicas reached the end."
    assert found[2] == "finetune against vanilla: median survival 0.50 against > 1.00 ps."


def test_plain_training_may_do_as_well():
    found = verdict(results(survival={"vanilla": entry(4), "delta": entry(4), "sam": entry(1)}))
    assert found[0] == "vanilla and delta survive best: 4 of 4 heated replicas reached the end with each."


def test_the_survivor_is_compared_also_without_errors():
    found = verdict(results(survival={"vanilla": entry(1), "finetune": entry(2), "delta": entry(4)}))
    assert found[2] == "delta against vanilla: median survival > 1.00 against 0.50 ps."


def test_one_model_alone_is_not_the_best():
    assert verdict(results(survival={"vanilla": entry(0)}))[0] == "vanilla: 0 of 4 heated replicas reached the end."


def test_only_models_of_all_trials_are_candidates():
    found = verdict(results(survival={"vanilla": entry(1), "delta": entry(4)}, squeeze={"vanilla": entry(2)}))
    assert found[0] == "vanilla: 1 of 4 heated and 2 of 4 squeezed replicas reached the end."


def test_nothing_to_compare_says_nothing():
    assert verdict(results()) == []
    assert verdict(results(survival={"eam": entry(4)})) == ["The EAM: 4 of 4 heated replicas reached the end."]


@pytest.mark.parametrize(("alive", "replicas"), [(0, 3), (3, 8), (8, 8)])
def test_confidence_is_clopper_and_pearsons(alive: int, replicas: int):
    """As quantiles of beta distributions."""
    low = beta.ppf(0.025, alive, replicas - alive + 1) if alive else 0.0
    high = beta.ppf(0.975, alive + 1, replicas - alive) if alive < replicas else 1.0
    assert words.interval(alive, replicas) == f"{100 * low:.0f} to {100 * high:.0f}{SPACE}%"
