"""The fit: it finds what made the data, it is deterministic, it says what it cannot do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.neighborlist import neighbor_list
from tests.conftest import STRUCTURES, hard_eam, quartz

from pretrain_mlip import fit_eam
from pretrain_mlip.calculators.batched import label_structures, predict
from pretrain_mlip.errors import InputError
from pretrain_mlip.potentials.eam import pairs as eam_pairs
from pretrain_mlip.potentials.eam import problem as eam_problem
from pretrain_mlip.potentials.eam.adoption import adopt_setfl
from pretrain_mlip.potentials.eam.fit import STIFFNESS
from pretrain_mlip.potentials.eam.form import EAM
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
    eam = fit_eam(train, settings=QUICK.model_copy(update={"prior": 0.0}), held_out=held_out)
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
    report = fit_eam(frames, settings=QUICK.model_copy(update={"prior": 0.0, "max_iterations": 30})).report
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
    weightless = label_structures(hard_eam(), rattled(1))
    weightless[0].info["config_weight"] = 0.0
    with pytest.raises(InputError, match="config_weight is 0"):
        fit_eam(weightless)
    far = Atoms("Si2", positions=[[0, 0, 0], [20, 0, 0]])
    set_labels(far, -1.0, np.zeros((2, 3)))
    with pytest.raises(InputError, match="within the EAM cutoff"):
        fit_eam([far])


def isolated(symbol: str, energy: float) -> Atoms:
    atom = Atoms(symbol, info={"config_type": "IsolatedAtom"})
    set_labels(atom, energy, None)
    return atom


def test_known_reference_energies_stay() -> None:
    truth = hard_eam()
    frames = label_structures(truth, rattled(6))
    quick = QUICK.model_copy(update={"max_iterations": 20})
    oxygen, silicon = truth.reference_energies()["O"], truth.reference_energies()["Si"]
    from_atoms = fit_eam([isolated("Si", silicon), *frames], settings=quick, reference_energies={"O": oxygen})
    assert from_atoms.reference_energies() == {"O": oxygen, "Si": silicon}
    (alone,) = predict(from_atoms, [isolated("O", 0.0)])
    assert alone.energy == pytest.approx(oxygen, abs=1e-12)  # F(0) = 0 and nothing else acts
    assert from_atoms.report["known_e0"] == {"O": oxygen, "Si": silicon}
    assert from_atoms.report["train"]["energy_rmse"] < 0.1
    # One that is known leaves the other to the fit
    free = fit_eam(frames, settings=quick, reference_energies={"O": oxygen}).reference_energies()
    assert free["O"] == oxygen
    assert free["Si"] != silicon
    with pytest.raises(InputError, match="isolated atoms only"):
        fit_eam([isolated("Si", silicon)])


def test_pairs_that_no_structure_shows_are_named(caplog: pytest.LogCaptureFixture) -> None:
    frames = []
    for symbol in ("O", "Si"):
        atoms = bulk(symbol, "fcc", a=4.0, cubic=True)
        atoms.rattle(0.1, seed=1)
        (labelled,) = label_structures(hard_eam(), [atoms])
        found = labels_of(labelled)
        set_labels(labelled, 0.1 * found.energy, 0.1 * found.forces, 0.1 * found.stress)  # far from where starts begin
        frames.append(labelled)
    untouched, best = EAM(["O", "Si"], QUICK.cutoff), set()
    for seed in range(4):
        settings = QUICK.model_copy(update={"starts": 3, "seed": seed, "screening_iterations": 4, "max_iterations": 2})
        eam = fit_eam(frames, settings=settings)
        assert eam.report["unseen_pairs"] == ["O-Si"]
        best.add(int(np.argmin(eam.report["start_losses"])))
        for name in ("log_depth", "log_width", "log_minimum"):
            assert getattr(eam, name)[eam.pair_number(0, 1)] == getattr(untouched, name)[eam.pair_number(0, 1)]
    assert best - {0}  # a start that is drawn was the best at least once
    assert "no training structure has O-Si within 6 Å" in caplog.text


def test_chunks_do_not_change_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = label_structures(hard_eam(), [*rattled(5), STRUCTURES["molecule without a cell"]])
    eam = EAM(["O", "Si"], 5.0)
    found = []
    for size in (10**9, 50):
        for module in (eam_problem, eam_pairs):
            monkeypatch.setattr(module, "CHUNK", size)
        eam.zero_grad()
        problem = eam_problem.Problem(eam, frames)
        loss = problem.loss(eam, QUICK)
        loss.backward()
        found.append((len(problem.sums.chunks), loss.item(), *(value.grad for value in eam.parameters())))
    (one, loss, *gradients), (many, chunked_loss, *chunked_gradients) = found
    assert one == 1
    assert many > len(frames)
    assert chunked_loss == pytest.approx(loss, rel=1e-13)  # only the order of sums differs
    for whole, chunked in zip(gradients, chunked_gradients, strict=True):
        torch.testing.assert_close(chunked, whole, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("form", ["alloy", "fs"])
def test_gradient_of_the_loss(form: str) -> None:
    truth = hard_eam(form)
    frames = label_structures(truth, [*rattled(3), STRUCTURES["molecule without a cell"]])
    eam = EAM(["O", "Si"], 6.0, form)  # type: ignore[arg-type]
    problem = eam_problem.Problem(eam, frames)
    problem.loss(eam, QUICK).backward()
    for value in eam.parameters():
        flat, slope = value.data.view(-1), value.grad.view(-1)  # type: ignore[union-attr]
        for place in range(len(flat)):
            losses = []
            for step in (1e-5, -2e-5):
                flat[place] += step
                losses.append(problem.loss(eam, QUICK).item())
            flat[place] += 1e-5
            # error of order step² times a third derivative of order one, and of rounding, 1e-16 / step
            assert slope[place].item() == pytest.approx((losses[0] - losses[1]) / 2e-5, abs=2e-8, rel=1e-6)


def test_a_structure_of_no_weight_changes_nothing() -> None:
    frames = label_structures(hard_eam(), rattled(4))
    odd = rattled(1, seed=7)[0]
    set_labels(odd, 1e3, np.ones((len(odd), 3)))
    odd.info["config_weight"] = 0.0
    eam = EAM(["O", "Si"], 5.0)
    alone, beside = eam_problem.Problem(eam, frames), eam_problem.Problem(eam, [*frames, odd])
    torch.testing.assert_close(beside.best_e0(eam), alone.best_e0(eam), rtol=1e-10, atol=1e-10)


def test_form_auto_takes_the_simpler_one_unless_the_other_is_better() -> None:
    quick = QUICK.model_copy(update={"form": "auto", "max_iterations": 40})
    frames = label_structures(hard_eam(), rattled(8))
    eam = fit_eam(frames, settings=quick)
    assert eam.form == "alloy"  # the labels' own form
    assert set(eam.report["forms"]) == {"alloy", "fs"}
    # labels whose density depends on the centre, by a factor of e³
    truth = hard_eam("fs")
    truth.log_root += 1.5
    truth.log_amplitude[0, 0] += 1.5
    truth.log_amplitude[0, 1] -= 1.5
    truth.log_decay[0, 0] += 0.8
    truth.log_decay[1, 0] -= 0.8
    frames, validation = label_structures(truth, rattled(8)), label_structures(truth, rattled(3, seed=5))
    eam = fit_eam(frames, settings=quick, validation=validation)
    losses = eam.report["forms"]
    assert losses["fs"] ** 0.5 < losses["alloy"] ** 0.5 / 1.1
    assert eam.form == "fs"


def test_stress_offset() -> None:
    truth = hard_eam()
    frames = label_structures(truth, rattled(6))
    for atoms in frames:
        found = labels_of(atoms)
        set_labels(atoms, found.energy, found.forces, found.stress - 0.02 * np.array([1, 1, 1, 0, 0, 0]))
    quick = QUICK.model_copy(update={"prior": 0.0, "max_iterations": 150})
    with_offset = fit_eam(frames, settings=quick.model_copy(update={"stress_offset": True})).report
    without = fit_eam(frames, settings=quick).report
    assert with_offset["stress_offset"] == pytest.approx(0.02, abs=0.002)
    assert with_offset["train"]["forces_rmse"] < 0.5 * without["train"]["forces_rmse"]


def test_published_tables_in_place_of_a_fit(tmp_path: Path) -> None:
    truth = hard_eam()
    truth.write_setfl(tmp_path / "published.eam.alloy")
    frames = label_structures(truth, rattled(5))
    settings = EAMSettings(setfl=tmp_path / "published.eam.alloy")
    eam = adopt_setfl(frames[:4], settings, held_out=frames[4:])
    assert eam.report["held_out"]["energy_rmse"] < 1e-6
    assert eam.report["held_out"]["forces_rmse"] < 1e-6
    for symbol, value in truth.reference_energies().items():
        assert eam.reference_energies()[symbol] == pytest.approx(value, abs=1e-5)
    assert all(found["repulsive"] for found in eam.report["audit"].values())
    given = adopt_setfl(frames, settings, reference_energies={"O": -430.0})
    assert given.reference_energies()["O"] == -430.0
    nickel = bulk("Ni", cubic=True)
    set_labels(nickel, 0.0, np.zeros((4, 3)))
    with pytest.raises(InputError, match="Ni"):
        adopt_setfl([nickel], settings)
    with pytest.raises(InputError, match="from_setfl"):
        fit_eam(frames, settings=settings)


def test_identical_frames_and_many_frames_by_stages() -> None:
    (frame,) = label_structures(hard_eam(), rattled(1))
    eam = fit_eam([frame] * 5, settings=QUICK.model_copy(update={"max_iterations": 10}))
    assert eam.report["frames"] == 5
    assert np.isfinite(eam.report["loss"]).all()
    frames = label_structures(hard_eam(), rattled(20))
    staged = QUICK.model_copy(update={"screening_frames": 2, "starts": 3, "max_iterations": 15})
    report = fit_eam(frames, settings=staged).report
    assert report["frames"] == 20
    assert len(report["starts"]) == 3
    assert report["train"]["forces_rmse"] < 0.5 * report["train"]["forces_rms"]


def test_refuses_what_gives_nothing_to_fit() -> None:
    frames = label_structures(hard_eam(), rattled(2))
    nothing = QUICK.model_copy(update={"energy_weight": 0.0, "forces_weight": 0.0, "stress_weight": 0.0})
    with pytest.raises(InputError, match="nothing to fit"):
        fit_eam(frames, settings=nothing)
    with pytest.raises(InputError, match=r"held-out structure 0.*no training structure has Ni"):
        fit_eam(frames, settings=QUICK, held_out=[bulk("Ni")])
    (alone,) = label_structures(hard_eam(), [isolated("O", 0.0)])
    alone.info["config_type"] = "IsolatedAtom"
    quick = QUICK.model_copy(update={"max_iterations": 2, "screening_iterations": 2})
    assert "held_out" not in fit_eam(frames, settings=quick, held_out=[alone]).report


def test_published_tables_with_an_energy_of_free_atoms(tmp_path: Path) -> None:
    truth = hard_eam()
    truth.write_setfl(tmp_path / "with_e0.eam.alloy", include_e0=True)  # F(0) = E0
    frames = label_structures(truth, rattled(3))
    settings = EAMSettings(setfl=tmp_path / "with_e0.eam.alloy")
    eam = adopt_setfl(frames, settings, reference_energies={"O": -430.0})
    (alone,) = predict(eam, [Atoms("O")])
    assert alone.energy == pytest.approx(-430.0, abs=1e-9)
    assert eam.reference_energies()["O"] == pytest.approx(0.0, abs=1e-9)
    with pytest.raises(InputError, match=r"eam.form, eam.cutoff would have no effect"):
        adopt_setfl(frames, settings.model_copy(update={"form": "fs", "cutoff": 5.0}))


def test_fits_start_where_the_nearest_neighbours_are() -> None:
    frames = label_structures(hard_eam(), rattled(4))
    eam = EAM(["O", "Si"], 6.0)
    nearest = eam_problem.Problem(eam, frames).nearest(eam)
    for (a, b), found in nearest.items():
        shortest = []
        for atoms in frames:
            i, j, distance = neighbor_list("ijd", atoms, 6.0)
            kinds = [eam.elements.index(symbol) for symbol in atoms.symbols]
            for atom, kind in enumerate(kinds):
                for here, there in {(a, b), (b, a)}:
                    around = distance[(i == atom) & np.isin(j, np.flatnonzero(np.array(kinds) == there))]
                    shortest += [around.min()] if kind == here and len(around) else []
        assert found == pytest.approx(np.mean(shortest), rel=1e-12)
    # nothing but the start: a fit that may not move stays there
    still = EAMSettings(cutoff=6.0, starts=1, screening_iterations=1, max_iterations=1, prior=1e12)
    values = fit_eam(frames, settings=still).report["parameters"]
    for pair, distance in (("O-O", nearest[0, 0]), ("O-Si", nearest[0, 1]), ("Si-Si", nearest[1, 1])):
        assert values[f"minimum.{pair}"] == pytest.approx(distance, rel=1e-4)
        assert values[f"width.{pair}"] * distance == pytest.approx(STIFFNESS, rel=1e-4)
