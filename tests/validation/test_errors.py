from __future__ import annotations

import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain_mlip.errors import InputError
from pretrain_mlip.keys import EV_PER_A3_IN_GPA
from pretrain_mlip.structures.labels import Labels, set_labels
from pretrain_mlip.validation.errors import error_table, evaluate, parity, predict_with, rows_for_display


def frame(atoms: int, kind: str, seed: int = 0) -> Atoms:
    rng = np.random.default_rng(seed)
    structure = Atoms(f"Cu{atoms}", rng.uniform(0, 5, (atoms, 3)), cell=[5] * 3, pbc=True, info={"config_type": kind})
    set_labels(structure, rng.normal(), rng.normal(size=(atoms, 3)), rng.normal(size=6))
    return structure


def shifted(structure: Atoms, energy: float, forces: float, stress: float) -> Labels:
    known = structure.calc.results
    return Labels(known["energy"] + energy, known["forces"] + forces, known["stress"] + stress)


def test_known_shifts_come_back_in_display_units():
    frames = [frame(2, "a"), frame(4, "b"), frame(4, "b", 1)]
    predicted = [shifted(f, e, 0.05, -0.01) for f, e in zip(frames, (0.2, -0.4, 0.8), strict=True)]
    table = error_table(frames, predicted)
    assert list(table) == ["a", "b", "all"]
    assert table["a"]["energy_mae"] == pytest.approx(100.0)  # 0.2 eV / 2 atoms
    assert table["b"]["energy_mae"] == pytest.approx(150.0)
    assert table["b"]["energy_rmse"] == pytest.approx(np.sqrt((100**2 + 200**2) / 2))
    assert table["all"]["forces_mae"] == pytest.approx(50.0)
    assert table["all"]["stress_rmse"] == pytest.approx(0.01 * EV_PER_A3_IN_GPA)
    assert (table["all"]["frames"], table["all"]["atoms"]) == (3, 10)
    json.dumps(table, allow_nan=False)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000))
def test_all_row_pools_components_and_rmse_is_no_less_than_mae(seed):
    rng = np.random.default_rng(seed)
    frames = [frame(int(rng.integers(1, 5)), str(rng.integers(3)), k) for k in range(6)]
    predicted = [Labels(0.0, np.zeros((len(f), 3)), None) for f in frames]
    table = error_table(frames, predicted)
    pooled = np.concatenate([f.calc.results["forces"].ravel() for f in frames])
    assert table["all"]["forces_mae"] == pytest.approx(1000 * np.abs(pooled).mean())
    assert table["all"]["forces_rmse"] == pytest.approx(table["all"]["forces_rms_reference"])
    for row in table.values():
        assert row["energy_rmse"] >= row["energy_mae"] - 1e-9
        assert row["stress_mae"] is None


def test_missing_labels_are_none_and_not_zero():
    bare = Atoms("Cu", info={"config_type": "bare"})
    labelled = frame(2, "full")
    predicted = [Labels(1.0, np.ones((1, 3)), None), shifted(labelled, 0, 0, 0)]
    table = error_table([bare, labelled], predicted)
    assert all(table["bare"][name] is None for name in ("energy_mae", "forces_mae", "stress_mae"))
    assert table["all"]["energy_mae"] == pytest.approx(0.0, abs=1e-12)
    headings, rows = rows_for_display({"bare": table["bare"]})
    assert headings == ["frames of", "frames", "atoms"]
    assert rows == [["bare", 1, 1]]


def test_labels_and_predictions_that_lack_stress():
    structure = frame(4, "a")
    stress = np.full(6, 0.1)
    stress[1] = np.nan
    set_labels(structure, 1.0, np.zeros((4, 3)), stress)
    row = error_table([structure], [Labels(1.0, np.zeros((4, 3)), np.full(6, 0.3))])["all"]
    assert row["stress_mae"] == pytest.approx(0.2 * EV_PER_A3_IN_GPA)  # of the five that are known

    class NoStress(Calculator):
        implemented_properties = ("energy", "forces")

        def calculate(self, atoms, *_):
            self.results = {"energy": 2.0, "forces": np.ones((len(atoms), 3))}

    (found,) = predict_with(NoStress(), [structure])
    assert found.stress is None
    assert found.energy == 2.0


def test_rows_by_another_key_and_frames_without_it():
    frames = [frame(2, "a"), frame(2, "b")]
    frames[0].info["split"] = "test"
    predicted = [shifted(f, 0, 0, 0) for f in frames]
    assert list(error_table(frames, predicted, by="split")) == ["(none)", "test", "all"]


def test_calculator_and_function_give_the_same():
    frames = []
    for seed in range(3):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.05, seed=seed)
        atoms.calc = EMT()
        set_labels(atoms, atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress())
        frames.append(atoms)
    open_frame = Atoms("Cu2", [[0, 0, 0], [0, 0, 2.4]])
    set_labels(open_frame, 1.0, np.zeros((2, 3)))
    frames.append(open_frame)
    predicted = predict_with(EMT(), frames)
    assert predicted[-1].stress is None
    by_calculator, points = evaluate(EMT(), frames[:3])
    by_function, _ = evaluate(lambda f: predict_with(EMT(), f), frames[:3])
    assert by_calculator == by_function
    # The same calculator made the labels: only rounding is left.
    assert by_calculator["all"]["energy_rmse"] < 1e-9
    assert by_calculator["all"]["stress_rmse"] < 1e-9
    np.testing.assert_allclose(points["forces"]["reference"], points["forces"]["predicted"])


def test_parity_is_thinned_the_same_way_every_time_and_free_of_composition():
    frames = [frame(n, "a", n) for n in (3, 5, 8, 10)]
    predicted = [shifted(f, 0.1 * len(f), 0.2, 0) for f in frames]
    one, two = parity(frames, predicted, points=20), parity(frames, predicted, points=20)
    assert one == two
    assert len(one["forces"]["reference"]) == 20
    difference = np.subtract(one["energy"]["predicted"], one["energy"]["reference"])
    np.testing.assert_allclose(difference, 0.1, atol=1e-5)  # six digits are kept
    for moved in frames:
        set_labels(moved, moved.calc.results["energy"] - 7000.0 * len(moved), moved.calc.results["forces"])
    again = parity(frames, [shifted_energy(f, 0.1 * len(f)) for f in frames], points=20)
    np.testing.assert_allclose(again["energy"]["reference"], one["energy"]["reference"], atol=1e-5)


def shifted_energy(structure: Atoms, energy: float) -> Labels:
    return Labels(structure.calc.results["energy"] + energy, None, None)


def test_parity_without_forces_is_empty():
    structure = Atoms("Cu")
    set_labels(structure, 1.0, None)
    assert parity([structure], [Labels(1.0, None, None)])["forces"] == {"reference": [], "predicted": []}


def test_non_finite_predictions_become_none():
    table = error_table([frame(2, "a")], [Labels(float("nan"), np.full((2, 3), np.nan), None)])
    assert table["all"]["energy_mae"] is None


def test_lengths_must_agree():
    with pytest.raises(InputError, match="0 predictions for 1 frames"):
        error_table([frame(2, "a")], [])
    with pytest.raises(InputError, match="no frame"):
        error_table([], [])
