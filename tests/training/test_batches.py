"""Batches: every structure once, no more edges than allowed, the same whatever the number of processes."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretrain_mlip.errors import InputError
from pretrain_mlip.training.batches import Batches, InOrder, Place

counts = st.lists(st.integers(0, 50), min_size=1, max_size=30).map(np.array)


@given(counts, st.integers(1, 5), st.none() | st.integers(50, 120), st.integers(0, 3))
def test_an_epoch_has_every_structure_once(edges: np.ndarray, size: int, most: int | None, epoch: int) -> None:
    plan = Batches(edges, size, 7, max_edges=most).plan(epoch)
    assert sorted(chain(*plan)) == list(range(len(edges)))
    assert all(len(batch) <= size for batch in plan)
    if most is not None:
        assert all(edges[batch].sum() <= most for batch in plan)
    assert plan == Batches(edges, size, 7, max_edges=most).plan(epoch)


@given(counts, st.integers(1, 6), st.integers(1, 4))
def test_processes_share_the_batches_of_one(edges: np.ndarray, size: int, processes: int) -> None:
    shares = [list(Batches(edges, size, 3, rank=rank, processes=processes)) for rank in range(processes)]
    plan = Batches(edges, size, 3).plan(0)
    assert {len(share) for share in shares} == {len(plan)}  # all take part in every step
    for number, batch in enumerate(plan):
        places = [place for share in shares for place in share[number]]
        assert sorted(place.index for place in places if place.counts) == sorted(batch)
        assert all(share[number] for share in shares)


def test_goes_on_within_an_epoch() -> None:
    batches = Batches(np.ones(10, dtype=int), 3, 0)
    whole = list(batches)
    batches.start = 2
    assert list(batches) == whole[2:]
    assert len(batches) == 2


def test_replayed_structures_join_every_batch() -> None:
    batches = Batches(np.ones(12, dtype=int), 3, 0, replayed=5, replay_size=2)
    orders: list[list[int]] = []
    for epoch in range(4):
        plan = batches.plan(epoch)
        assert len(plan) == 3  # the budget of the others is theirs alone
        assert sorted(index for batch in plan for index in batch if index < 7) == list(range(7))
        replayed = [[index for index in batch if index >= 7] for batch in plan]
        assert all(len(batch) == 2 for batch in replayed)
        assert len(set(chain(*replayed))) == 5  # all before any comes again
        orders.append(list(chain(*replayed)))
    assert set(chain(*orders)) == set(range(7, 12))
    assert orders[0] != orders[1]  # shuffled
    assert orders[0] != sorted(orders[0])


def test_a_structure_that_never_fits_is_named() -> None:
    with pytest.raises(InputError, match=r"frame 2: 90 edges, more than max_edges = 80"):
        Batches(np.array([10, 20, 90]), 2, 0, max_edges=80, name_of=lambda index: f"frame {index}")
    with pytest.raises(InputError, match=r"70 edges beside up to 20 of replayed"):
        Batches(np.array([10, 70, 20, 5]), 2, 0, max_edges=80, replayed=2, replay_size=1)


@given(counts, st.integers(1, 5), st.integers(1, 60), st.integers(1, 3))
def test_validation_sees_every_structure_once(edges: np.ndarray, size: int, most: int, processes: int) -> None:
    parts = [list(InOrder(edges, size, most, rank=rank, processes=processes)) for rank in range(processes)]
    batches = list(chain(*parts))
    assert sorted(place.index for batch in batches for place in batch) == list(range(len(edges)))
    for batch in batches:
        indices = [place.index for place in batch]
        assert len(batch) <= size
        assert len(batch) == 1 or edges[indices].sum() <= most
    assert all(place == Place(place.index) for place in chain(*batches))
