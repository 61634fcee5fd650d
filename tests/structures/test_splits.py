import numpy as np
import pytest
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain_mlip.errors import InputError
from pretrain_mlip.settings import validate
from pretrain_mlip.structures.datasets import load_dataset
from pretrain_mlip.structures.splits import SplitSettings, split_structures


def frame(k, symbols="Cu2", **info):
    n = len(Atoms(symbols))
    return Atoms(symbols, positions=np.random.default_rng(k).uniform(0, 9, (n, 3)), info={"k": k, **info})


def ks(frames):
    return [atoms.info["k"] for atoms in frames]


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 60), st.integers(0, 50), st.sampled_from(["random", "group", "auto"]), st.integers(1, 8))
def test_every_frame_is_in_one_split_and_families_stay_together(n, seed, method, families):
    frames = [frame(k, parent=f"p{k % families}") if k % 3 == 0 else frame(k) for k in range(n)]
    splits = split_structures(frames, SplitSettings(method=method, seed=seed))
    assert sorted(k for side in splits for k in ks(side)) == list(range(n))
    assert splits.train
    assert splits.val
    parents = [{a.info["parent"] for a in side if "parent" in a.info} for side in splits]
    assert sum(map(len, parents)) == len(set().union(*parents))
    for side, name in zip(splits, ("train", "val", "test"), strict=True):
        assert {atoms.info["split"] for atoms in side} <= {name}
    assert all("split" not in atoms.info for atoms in frames)


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(20)), st.integers(0, 5))
def test_order_of_frames_does_not_matter(order, seed):
    frames = [frame(k, parent=f"p{k // 2}") for k in range(20)]
    first = split_structures(frames, SplitSettings(seed=seed))
    second = split_structures([frames[k] for k in order], SplitSettings(seed=seed))
    assert [set(ks(side)) for side in first] == [set(ks(side)) for side in second]


def test_shares_and_seeds():
    frames = [frame(k) for k in range(100)]
    first = split_structures(frames)
    assert [len(side) for side in first] == [80, 10, 10]
    assert ks(first.val) != ks(split_structures(frames, SplitSettings(seed=1)).val)
    assert ks(first.val) == ks(split_structures(frames).val)
    assert [len(side) for side in split_structures(frames, SplitSettings(train=2, val=1, test=1))] == [50, 25, 25]


def test_limits_are_subsets_of_the_full_split():
    frames = [frame(k) for k in range(50)]
    full = split_structures(frames)
    limited = split_structures(frames, SplitSettings(n_train=10, n_val=2, n_test=0))
    assert [len(side) for side in limited] == [10, 2, 0]
    assert set(ks(limited.train)) < set(ks(full.train))


def test_a_parent_known_by_its_own_id_stays_with_its_copies():
    frames = [frame(k, structure_id=f"s{k}") for k in range(10)] + [frame(10 + k, parent=f"s{k}") for k in range(10)]
    for side in split_structures(frames, SplitSettings(method="random")):
        assert {k % 10 for k in ks(side) if k < 10} == {k % 10 for k in ks(side) if k >= 10}


def test_equal_frames_stay_together():
    frames = [frame(k % 10) for k in range(30)]
    splits = split_structures(frames)
    assert sum(len(set(ks(side))) for side in splits) == 10


def test_group_key():
    frames = [frame(k, config_type=f"c{k % 5}") for k in range(50)]
    splits = split_structures(frames, SplitSettings(method="group", group_key="config_type"))
    kinds = [{a.info["config_type"] for a in side} for side in splits]
    assert [len(kind) for kind in kinds] == [3, 1, 1]
    assert len(set().union(*kinds)) == 5
    with pytest.raises(InputError, match="structure 50: no info 'config_type'"):
        split_structures([*frames, frame(50)], SplitSettings(method="group", group_key="config_type"))


def test_given_is_honoured_with_other_spellings():
    names = ["train", "valid", "test", "training", "Validation"]
    splits = split_structures([frame(k, split=name) for k, name in enumerate(names)])
    assert [ks(side) for side in splits] == [[0, 3], [1, 4], [2]]


def test_given_without_validation_takes_it_from_training(caplog):
    frames = [frame(k, split="train" if k < 27 else "test") for k in range(30)]
    splits = split_structures(frames)
    assert [len(side) for side in splits] == [24, 3, 3]
    assert set(ks(splits.test)) == {27, 28, 29}
    assert "no validation frames" in caplog.text


def test_given_with_copies_on_two_sides_names_the_parent():
    frames = [frame(0, split="train", parent="glass-3"), frame(1, split="val", parent="glass-3"), frame(2, split="val")]
    with pytest.raises(InputError, match=r"copies of parent 'glass-3' are given on two sides .train, val"):
        split_structures(frames)
    frames[0].info = {"split": "train", "structure_id": "glass-3"}
    with pytest.raises(InputError, match="glass-3"):
        split_structures(frames)


def test_isolated_atoms_train():
    frames = [frame(k, split="val" if k == 1 else "train") for k in range(3)]
    frames.append(frame(3, "Ni", config_type="IsolatedAtom", split="test"))
    assert [ks(side) for side in split_structures(frames)] == [[0, 2, 3], [1], []]
    with pytest.raises(InputError, match="isolated atoms or kinds held out cannot train"):
        split_structures(frames[3:])


def test_every_element_is_trained():
    frames = [frame(k, "Cu2") for k in range(20)] + [frame(20, "Ni2"), frame(21, "Au2")]
    for seed in range(5):
        assert {20, 21} <= set(ks(split_structures(frames, SplitSettings(seed=seed)).train))
    for atoms in frames:
        atoms.info["split"] = "train"
    frames[20].info["split"] = "val"
    alone = Atoms("Ni", info={"k": 22, "config_type": "IsolatedAtom"})
    for given_frames in (frames, [*frames, alone]):  # an isolated atom teaches nothing of bonds
        with pytest.raises(InputError, match="structure 20: element Ni is in the val set but in no training frame"):
            split_structures(given_frames)


@pytest.mark.parametrize(
    ("frames", "kwargs", "message"),
    [
        ([frame(0)], {}, "none is left for validation"),
        ([frame(0, parent="a"), frame(1, parent="a")], {}, "none is left for validation"),
        ([], {}, "no frame to split"),
        ([frame(0, split="train"), frame(1)], {"method": "given"}, "structure 1: no info 'split' .1 frames"),
        ([frame(0, split="train"), frame(1, split="other")], {}, "structure 1: split 'other' is unknown"),
        ([frame(0, split="val"), frame(1, split="val")], {}, "no frame is left for 'train'"),
    ],
)
def test_what_cannot_be_split_is_refused(frames, kwargs, message):
    with pytest.raises(InputError, match=message):
        split_structures(frames, SplitSettings(**kwargs))


def test_two_frames_are_enough():
    assert [len(side) for side in split_structures([frame(0), frame(1)])] == [1, 1, 0]


def test_wrong_settings_are_refused():
    with pytest.raises(InputError, match="did you mean 'n_train'"):
        validate(SplitSettings, {"ntrain": 3})


def test_held_out_kinds_are_only_tested_on() -> None:
    frames = load_dataset("silica_mini")
    splits = split_structures(frames, SplitSettings(hold_out=["melt_*"]))
    melts = sum(atoms.info["config_type"].startswith("melt") for atoms in frames)
    for part in (splits.train, splits.val):
        assert part
        assert not any(atoms.info["config_type"].startswith("melt") for atoms in part)
    assert sum(atoms.info["config_type"].startswith("melt") for atoms in splits.test) == melts
    assert any(not atoms.info["config_type"].startswith("melt") for atoms in splits.test)
    assert sum(map(len, splits)) == len(frames)
    with pytest.raises(InputError, match="like 'gas'"):
        split_structures(frames, SplitSettings(hold_out=["gas"]))


def test_holding_out_must_not_divide_a_family() -> None:
    frames = load_dataset("silica_mini")[:12]
    for atoms in frames:
        atoms.info["config_type"] = "crystal"
    frames[3].info["parent"] = frames[5].info["structure_id"]
    frames[3].info["config_type"] = "copy"
    with pytest.raises(InputError, match="hold_out separates"):
        split_structures(frames, SplitSettings(hold_out=["copy"]))
