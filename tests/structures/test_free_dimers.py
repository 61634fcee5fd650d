"""Free dimers show every pair of elements at every distance from the floor to the cutoff."""

from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np
import pytest
from ase import Atoms
from ase.spacegroup import crystal
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain_mlip import EAM
from pretrain_mlip.errors import InputError
from pretrain_mlip.pipeline.preparation import coverage_table, teacher_of
from pretrain_mlip.structures.datasets import load_dataset
from pretrain_mlip.structures.dimers import DIMER, free_dimers
from pretrain_mlip.structures.distances import bin_edges, distances_by_pair, pair_coverage, pair_name, pairs_of
from pretrain_mlip.structures.io import Labels, labels_of
from pretrain_mlip.structures.moves import PerturbationSettings
from pretrain_mlip.structures.perturbation import perturb

CUTOFF = 8.0
SETTINGS = PerturbationSettings(dimers=1)


def perovskite() -> list[Atoms]:
    cell = crystal(["Sr", "Ti", "O"], [(0.5, 0.5, 0.5), (0, 0, 0), (0.5, 0, 0)], spacegroup=221, cellpar=[3.9] * 3)
    frames = []
    for seed in range(8):
        atoms = Atoms(numbers=cell.numbers, positions=cell.positions, cell=cell.cell, pbc=True) * (2, 1, 1)
        atoms.rattle(0.1, seed=seed)
        frames.append(atoms)
    return frames


SYSTEMS = {
    "silica": lambda: load_dataset("silica_mini")[::4],
    "phosphorus": lambda: load_dataset("phosphorus_mini")[::8],
    "three elements": perovskite,
}


@pytest.mark.parametrize("system", list(SYSTEMS))
def test_every_pair_has_every_distance_from_the_floor_to_the_cutoff(system: str) -> None:
    parents = SYSTEMS[system]()
    pairs = pairs_of(parents)
    elements = {symbol for pair in pairs for symbol in pair.split("-")}
    assert len(pairs) == len(elements) * (len(elements) + 1) / 2
    teacher = teacher_of(EAM(sorted(elements), CUTOFF))
    made = perturb(parents, SETTINGS, teacher=teacher, cutoff=CUTOFF)
    bare = [atoms for atoms in made.frames if atoms.info["config_type"] != DIMER]
    start, end = SETTINGS.floor_distance, CUTOFF
    for pair, found in pair_coverage(made.frames, pairs, start, end).items():
        assert found.bins == 75
        assert found.filled == 75, pair
    for frames in (parents, bare):  # neither the structures nor their copies reach all the way
        assert all(found.filled < 75 for found in pair_coverage(frames, pairs, start, end).values())
    assert made.counts["dimers"] == len(made.frames) - len(bare)


@settings(deadline=None, max_examples=40)
@given(
    numbers=st.sets(st.integers(1, 90), min_size=1, max_size=3),
    count=st.integers(1, 4),
    floor=st.floats(0.1, 1.5),
    reach=st.floats(0.05, 6.0),
    seed=st.integers(0, 2**32),
)
def test_bins_are_filled_up_and_not_beyond(
    numbers: set[int], count: int, floor: float, reach: float, seed: int
) -> None:
    cutoff = floor + reach
    pairs = list(combinations_with_replacement(sorted(numbers), 2))
    chosen = PerturbationSettings(dimers=count, floor_distance=floor, seed=seed)
    rng = np.random.default_rng(seed)
    copies = [Atoms(numbers=rng.choice(list(numbers), 6), positions=rng.uniform(0, cutoff, (6, 3))) for _ in range(3)]
    dimers, lost = free_dimers(pairs, copies, chosen, cutoff, None)
    assert lost == 0
    edges = bin_edges(floor, cutoff)
    before, after = (distances_by_pair(frames, 1.01 * cutoff) for frames in (copies, [*copies, *dimers]))
    for pair in pairs:
        name = pair_name(*pair)
        counts = [np.histogram(found.get(name, []), edges)[0] for found in (before, after)]
        np.testing.assert_array_equal(counts[1], np.maximum(counts[0], count))
    assert all(floor <= atoms.get_distance(0, 1) + 1e-9 and not atoms.cell.any() for atoms in dimers)
    assert len({atoms.info["structure_id"] for atoms in dimers}) == len(dimers)


def test_a_dimer_depends_on_the_seed_its_elements_and_its_bin_only() -> None:
    alone, _ = free_dimers([(8, 14)], [], SETTINGS, CUTOFF, None)
    assert len(alone) == 75
    others = [Atoms("SiO", positions=[[0, 0, 0], [r, 0, 0]]) for r in (0.55, 3.05)]
    among, _ = free_dimers([(8, 8), (8, 14)], others, SETTINGS, CUTOFF, None)
    assert [atoms for atoms in among if set(atoms.numbers) == {8, 14}] == [
        atoms for number, atoms in enumerate(alone) if number not in (0, 25)
    ]
    seeded, _ = free_dimers([(8, 14)], [], SETTINGS.model_copy(update={"seed": 1}), CUTOFF, None)
    assert alone != seeded


def test_labels_are_the_teachers_and_no_cap_applies() -> None:
    eam = EAM(["O", "Si"], CUTOFF)
    made = perturb(load_dataset("silica_mini")[:2], SETTINGS, teacher=teacher_of(eam), cutoff=CUTOFF)
    dimers = [atoms for atoms in made.frames if atoms.info["config_type"] == DIMER]
    largest = []
    for atoms in dimers:
        forces = labels_of(atoms).forces
        assert forces is not None
        largest.append(float(np.linalg.norm(forces, axis=1).max()))
        calculated = atoms.copy()
        calculated.calc = eam.calculator()
        assert calculated.get_potential_energy() == pytest.approx(labels_of(atoms).energy, rel=1e-12)
        assert forces == pytest.approx(calculated.get_forces(), rel=1e-9, abs=1e-9)
        weight = atoms.info.get("config_weight", 1.0)
        assert weight == pytest.approx(min(1.0, SETTINGS.max_force / largest[-1]))
    assert max(largest) > 10 * SETTINGS.max_force
    copies = [atoms for atoms in made.frames if atoms.info["config_type"] != DIMER]
    assert max(np.linalg.norm(labels_of(atoms).forces, axis=1).max() for atoms in copies) <= SETTINGS.max_force


def test_what_is_not_finite_is_left_out_and_counted() -> None:
    def teacher(frames: list[Atoms]) -> list[Labels]:
        """Overflows for two atoms close to each other."""
        close = [len(atoms) == 2 and atoms.get_distance(0, 1) < 1.0 for atoms in frames]
        return [
            Labels(np.inf if overflow else 0.0, np.zeros((len(atoms), 3)), None)
            for atoms, overflow in zip(frames, close, strict=True)
        ]

    parents = [Atoms("H4", positions=20.0 * np.eye(4, 3))]  # no copy comes within the cutoff
    found = perturb(parents, PerturbationSettings(dimers=2, pair_share=0.0), teacher=teacher, cutoff=CUTOFF)
    assert found.counts["dimers"] == 2 * 70
    assert found.counts["rejected_not_finite"] == found.counts["dropped"] == 2 * 5  # bins of 0.1 Å below 1 Å
    assert found.counts["drawn"] == found.counts["kept"] + 10 == 6 + 150
    assert len(found.frames) == found.counts["kept"]


@pytest.mark.parametrize(
    ("splits", "expected"), [([], None), (["train", "train"], "train"), (["val", "train"], "train"), (["val"], "val")]
)
def test_dimers_are_for_training_where_parents_are(splits: list[str], expected: str | None) -> None:
    parents = perovskite()[: max(1, len(splits))]
    for atoms, split in zip(parents, splits, strict=False):
        atoms.info["split"] = split
    found = {a.info.get("split") for a in perturb(parents, SETTINGS).frames if a.info["config_type"] == DIMER}
    assert found == {expected}


def test_a_cutoff_inside_the_floor_is_refused() -> None:
    with pytest.raises(InputError, match="set dimers=0"):
        perturb(perovskite(), SETTINGS, cutoff=0.4)
    assert perturb(perovskite()[:1], PerturbationSettings(dimers=0), cutoff=0.4).frames


def test_the_table_lists_pairs_that_no_structure_has() -> None:
    far = [Atoms("HF", positions=[[0, 0, 0], [9.0, 0, 0]])]
    near = [Atoms("HF", positions=[[0, 0, 0], [0.75, 0, 0]])]
    rows = coverage_table(far, near, 0.5, CUTOFF)
    assert [list(column.cells) for column in rows.columns] == [
        ["F-F", "F-H", "H-H"],
        ["-", "-", "-"],
        ["-", "0.75", "-"],
        ["0 of 75"] * 3,
        ["0 of 75", "1 of 75", "0 of 75"],
    ]
