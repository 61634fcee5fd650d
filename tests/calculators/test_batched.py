"""Predictions for many structures equal those one by one."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from tests.conftest import STRUCTURES, hard_eam

from pretrain_mlip.calculators import batched
from pretrain_mlip.calculators.batched import label_structures, predict
from pretrain_mlip.errors import InputError
from pretrain_mlip.structures.io import labels_of


@pytest.mark.parametrize("edges", [1, 300, 10**6])
def test_batches_of_any_size_give_the_same(edges: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batched, "EDGES_PER_BATCH", edges)
    eam, frames = hard_eam(), list(STRUCTURES.values())
    together = predict(eam, frames)
    for atoms, found in zip(frames, together, strict=True):
        alone = atoms.copy()
        alone.calc = eam.calculator()
        assert found.energy == pytest.approx(alone.get_potential_energy(), abs=1e-9)
        assert found.forces == pytest.approx(alone.get_forces(), abs=1e-9)
        assert (found.stress is None) == (not atoms.pbc.all())


def test_labels_are_attached_to_copies() -> None:
    frames = [STRUCTURES["quartz"].copy()]
    frames[0].info = {"config_type": "x"}
    (labelled,) = label_structures(hard_eam(), frames)
    assert frames[0].calc is None
    assert labelled.info == {"config_type": "x"}
    found = labels_of(labelled)
    assert found.energy is not None
    assert found.forces is not None
    assert found.stress is not None
    assert np.abs(found.forces.sum(0)).max() < 1e-9


def test_names_the_structure_at_fault() -> None:
    with pytest.raises(InputError, match="structure 1: element Fe"):
        predict(hard_eam(), [Atoms("Si"), Atoms("Fe")])


def test_nothing_to_do() -> None:
    assert predict(hard_eam(), []) == []
