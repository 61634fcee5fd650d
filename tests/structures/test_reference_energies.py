import logging

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain_mlip.errors import InputError
from pretrain_mlip.structures.io import set_labels
from pretrain_mlip.structures.reference_energies import fit_reference_energies

E0 = {"H": -13.6, "O": -432.0, "Si": -107.0}


def frame(formula, excess=0.0, **info):
    atoms = Atoms(formula, info=info)
    set_labels(atoms, sum(E0[s] for s in atoms.symbols) + excess * len(atoms), None)
    return atoms


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(1, 4)), min_size=0, max_size=8))
def test_energies_that_are_sums_are_found_exactly(extra):
    compositions = [(1, 0, 2), (2, 1, 0), (0, 2, 1), *extra]
    frames = [frame(f"H{h}O{o}Si{s}") for h, o, s in compositions]
    fitted = fit_reference_energies(frames)
    assert list(fitted) == ["H", "O", "Si"]
    for symbol, energy in fitted.items():
        assert energy == pytest.approx(E0[symbol], abs=1e-7)  # least squares in double precision of numbers near 400


def test_one_composition_gives_equal_parts_and_says_so(caplog):
    with caplog.at_level(logging.INFO):
        fitted = fit_reference_energies([frame("SiO2", -0.1), frame("Si2O4", 0.1)])
    mean = (E0["Si"] + 2 * E0["O"]) / 3
    assert fitted == pytest.approx({"O": mean, "Si": mean}, rel=1e-12)
    assert "1 combination(s) undetermined" in caplog.text
    assert "O" in caplog.text
    assert "Si" in caplog.text


def test_null_direction_keeps_the_energy_of_the_compound(caplog):
    with caplog.at_level(logging.INFO):
        fit_reference_energies([frame("SiO2")])
    assert "-0.5 O +1 Si" in caplog.text or "+0.5 O -1 Si" in caplog.text


def test_nearly_constant_composition_does_not_blow_up():
    rng = np.random.default_rng(0)
    frames = [frame("Si32O64" if k % 5 else "Si32O63", rng.normal(0, 0.05)) for k in range(50)]
    fitted = fit_reference_energies(frames)
    assert abs(fitted["Si"] - fitted["O"]) < 1.0  # the mean, and not what scatter makes of a difference of 0.3 %


def test_a_rare_element_is_still_fitted():
    frames = [frame("Si4O8") for _ in range(500)] + [frame("Si2H2"), frame("Si8"), frame("O4Si2")]
    assert fit_reference_energies(frames)["H"] == pytest.approx(E0["H"], abs=1e-6)


def test_isolated_atoms_come_first_and_given_values_override(caplog):
    frames = [frame("SiO2", -5.0), frame("Si2O4", -5.2)]
    isolated = [frame("O", config_type="IsolatedAtom")]
    fitted = fit_reference_energies(frames + isolated)
    assert fitted["O"] == E0["O"]
    assert fitted["Si"] == pytest.approx(E0["Si"] - 3 * 5.1, abs=1e-9)
    assert fit_reference_energies(frames + isolated, {"O": -400.0})["O"] == -400.0
    two = [frame("O", 0.5, config_type="IsolatedAtom"), *isolated]
    assert fit_reference_energies(frames + two)["O"] == E0["O"]
    assert "isolated O atoms differ by 0.500 eV" in caplog.text


def test_what_cannot_be_fitted_is_refused():
    unlabelled = Atoms("H2")
    with pytest.raises(InputError, match="reference energy of H"):
        fit_reference_energies([frame("SiO2"), unlabelled])
    with pytest.raises(InputError, match="structure 0: config_type IsolatedAtom, but it has 2 atoms"):
        fit_reference_energies([frame("O2", config_type="IsolatedAtom")])
    with pytest.raises(InputError, match="without an energy"):
        fit_reference_energies([Atoms("O", info={"config_type": "IsolatedAtom"})])
    with pytest.raises(InputError, match="'Xy'"):
        fit_reference_energies([frame("O2")], {"Xy": 1.0})
