"""What trials take from the training set."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from pretrain_mlip.dynamics.detection import Checks
from pretrain_mlip.dynamics.failure import FailureSettings
from pretrain_mlip.pipeline.trials import watched_for


def labelled(formula: str, energy: float, **info: str) -> Atoms:
    atoms = Atoms(formula, np.arange(3 * len(Atoms(formula))).reshape(-1, 3) * 2.0)
    atoms.calc = SinglePointCalculator(atoms, energy=energy)
    atoms.info.update(info)
    return atoms


def test_energies_of_training_structures_bound_those_of_runs() -> None:
    """Counted from reference energies, so that structures of another composition are judged too."""
    frames = [
        labelled("Cu", -50.0, config_type="IsolatedAtom"),
        labelled("Au", -150.0, config_type="IsolatedAtom"),
        labelled("Cu2", -106.0),
        labelled("CuAu", -202.0),
    ]
    found = watched_for(FailureSettings(), frames, {})
    assert found.energy_range == pytest.approx((-3.0, -1.0))
    assert found.reference_energies == {"Cu": -50.0, "Au": -150.0}
    limit = (2 * -150.0 - 50.0) / 3 - 3.0 - 1.0
    for energy, fails in ((limit + 0.01, False), (limit - 0.01, True)):
        checks = Checks(found)
        assert checks.look(labelled("Au2Cu", 3 * (limit + 2.0))) is None
        assert (checks.look(labelled("Au2Cu", 3 * energy)) is not None) == fails


def test_energies_that_are_given_or_unwanted_stay() -> None:
    frames = [labelled("Cu2", -106.0)]
    given = FailureSettings(energy_range=(-1.0, 1.0), reference_energies={"Cu": -3.0})
    off = FailureSettings(energy_margin=None)
    assert watched_for(given, frames, {}) == given
    assert watched_for(off, frames, {}) == off
    assert watched_for(FailureSettings(), frames, {"Cu": -52.0}).energy_range == pytest.approx((-1.0, -1.0))
