"""The fit: it finds what made the data, it is deterministic, it says what it cannot do."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from tests.conftest import STRUCTURES, hard_eam, quartz

from pretrain_mlip import fit_eam
from pretrain_mlip.calculators.batched import label_structures, predict
from pretrain_mlip.errors import InputError
from pretrain_mlip.potentials.eam.settings import EAMSettings
from pretrain_mlip.structures.datasets import load_dataset
from pretrain_mlip.structures.io import labels_of, set_labels

QUICK = EAMSettings(cutoff=6.0, starts=1, max_iterations=300, screening_iterations=30)


def rattled(count: int, seed: int = 0) -> list[Atoms]:
    rng = np.random.default_rng(seed)
    frames = []
    for number in range(count):
        atoms = quartz()
        atoms.set_cell(atoms.cell.array * rng.uniform(0.95, 1.08), scale_atoms=True)
        if number % 3 == 0:
            del atoms[0]  # so that E0s of both elements are determined
        atoms.positions += rng.normal(scale=0.15, size=atoms.positions.shape)
        frames.append(atoms)
    return frames


def test_recovers_an_eam_from_its_own_labels() -> None:
    truth = hard_eam()
    train, held_out = (label_structures(truth, rattled(number, seed)) for number, seed in ((12, 0), (4, 1)))
    eam = fit_eam(train, settings=QUICK, held_out=held_out)
    errors = eam.report["held_out"]
    assert errors["forces_rmse"] < 0.05 * errors["forces_rms"]
    assert errors["energy_rmse"] < 0.02
    assert errors["energy_rmse"] < 0.2 * eam.report["baseline_energy_rmse"]
    # the report's errors are those that anyone would compute
    difference = [
        a.energy / len(f) - labels_of(f).energy / len(f) for a, f in zip(predict(eam, held_out), held_out, strict=True)
    ]
    assert errors["energy_rmse"] == pytest.approx(np.sqrt(np.mean(np.square(difference))), rel=1e-6)


def test_deterministic_and_better_than_a_constant_on_dft_data() -> None:
    frames = load_dataset("silica_mini")[:16]
    quick = EAMSettings(starts=2, screening_iterations=10, max_iterations=25, screening_frames=6)
    first, second = (fit_eam(frames[:12], settings=quick, held_out=frames[12:]) for _ in range(2))
    for name, value in first.state_dict().items():
        assert (value == second.state_dict()[name]).all()
    assert len(first.report["start_losses"]) == 2
    assert first.report["loss"] == sorted(first.report["loss"], reverse=True)
    held_out = first.report["held_out"]
    assert held_out["energy_rmse"] < 0.5 * first.report["baseline_energy_rmse"]
    assert held_out["forces_rmse"] < 0.7 * held_out["forces_rms"]
    assert first.report["train"]["stress_rmse"] is not None


@pytest.mark.parametrize("seed", range(6))
def test_no_start_leaves_the_numbers(seed: int) -> None:
    frames = load_dataset("silica_mini")[:6]
    rough = EAMSettings(starts=3, seed=seed, stress_weight=1.0, screening_iterations=12, max_iterations=3)
    report = fit_eam(frames, settings=rough).report
    assert np.isfinite([*report["start_losses"], *report["loss"]]).all()


def test_one_element_one_structure_without_stress() -> None:
    atoms = bulk("Ni", cubic=True) * (2, 2, 2)
    atoms.rattle(0.1, seed=1)
    set_labels(atoms, -5.7 * len(atoms), np.random.default_rng(0).normal(size=(len(atoms), 3)))
    eam = fit_eam([atoms], settings=QUICK.model_copy(update={"max_iterations": 5}))
    (found,) = predict(eam, [atoms])
    assert found.energy == pytest.approx(-5.7 * len(atoms), rel=1e-9)  # one structure: its E0 takes the energy up
    assert eam.report["train"]["stress_rmse"] is None


def test_molecules_beside_crystals_with_stress() -> None:
    frames = label_structures(hard_eam(), [*rattled(4), STRUCTURES["molecule without a cell"], STRUCTURES["slab"]])
    report = fit_eam(frames, settings=QUICK.model_copy(update={"max_iterations": 10})).report
    assert report["loss"][-1] < 1e-3  # labels that an EAM made
    assert report["train"]["stress_rmse"] is not None


def test_weights_of_structures_count() -> None:
    frames = load_dataset("silica_mini")[:8]
    quick = EAMSettings(starts=1, screening_iterations=5, max_iterations=150, energy_weight=0, stress_weight=0)
    plain = fit_eam(frames, settings=quick, held_out=frames[:1]).report["held_out"]["forces_rmse"]
    frames[0].info["config_weight"] = 100.0
    assert fit_eam(frames, settings=quick, held_out=frames[:1]).report["held_out"]["forces_rmse"] < plain


def test_refuses() -> None:
    with pytest.raises(InputError, match="no structures"):
        fit_eam([])
    with pytest.raises(InputError, match="needs energy and forces"):
        fit_eam([quartz()])
    far = Atoms("Si2", positions=[[0, 0, 0], [20, 0, 0]])
    set_labels(far, -1.0, np.zeros((2, 3)))
    with pytest.raises(InputError, match="within the EAM cutoff"):
        fit_eam([far])
