"""Graphs as bytes: they come back in every bit. Batches: those of torch_geometric."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Batch, Data

from pretrain_mlip import keys
from pretrain_mlip.graphs.graph import half_of, make_batch, make_graph
from pretrain_mlip.graphs.records import decode, digest, encode
from pretrain_mlip.structures.io import set_labels


@st.composite
def structures(draw: st.DrawFn) -> Atoms:
    """Anything: one atom, no neighbours, skewed cells, some directions periodic, labels that are missing, any names."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    atoms = draw(st.integers(1, 12))
    length = draw(st.sampled_from([2.0, 4.0, 30.0])) * atoms ** (1 / 3)
    cell = np.eye(3) * length + rng.uniform(-0.3, 0.3, (3, 3)) * length
    pbc = draw(st.tuples(st.booleans(), st.booleans(), st.booleans()))
    found = Atoms(rng.integers(1, 119, atoms), rng.uniform(-1, 2, (atoms, 3)) @ cell, cell=cell, pbc=pbc)
    found.info = draw(
        st.fixed_dictionaries(
            {},
            optional={
                keys.CONFIG_TYPE: st.text(),
                keys.STRUCTURE_ID: st.text(),
                keys.CONFIG_WEIGHT: st.floats(0, 1e300),
            },
        )
    )
    set_labels(
        found,
        draw(st.none() | st.floats(allow_nan=False)),
        draw(st.sampled_from([None, rng.normal(size=(atoms, 3))])),
        draw(st.sampled_from([None, rng.normal(size=6)])),
    )
    return found


def assert_identical(one: Data, other: Data) -> None:
    assert list(one.keys()) == list(other.keys())
    for name, value in one.to_dict().items():
        if isinstance(value, torch.Tensor):
            assert (value.dtype, value.shape) == (other[name].dtype, other[name].shape)
            assert value.numpy().tobytes() == other[name].numpy().tobytes()  # signs of zero and payloads of nan too
        else:
            assert value == other[name]


@settings(max_examples=40, deadline=None)
@given(structures(), st.sampled_from([0.1, 4.0]))
def test_a_graph_comes_back_in_every_bit(atoms: Atoms, cutoff: float) -> None:
    graph = make_graph(atoms, cutoff, labels=True)
    found = decode(encode(graph))
    assert_identical(graph, found)
    assert digest(graph) == digest(found)


def test_more_atoms_than_a_byte_counts() -> None:
    graph = make_graph(bulk("Si", cubic=True) * (4, 4, 3), 3.0, labels=True)
    assert graph.num_nodes == 384
    assert_identical(graph, decode(encode(graph)))


def test_an_image_far_away_and_a_changed_graph() -> None:
    graph = make_graph(Atoms("H", cell=[0.012, 50, 50], pbc=[True, False, False]), 3.0, labels=True)
    assert graph[keys.CELL_SHIFTS].abs().max() > 127
    assert_identical(graph, decode(encode(graph)))
    other = decode(encode(graph))
    other[keys.POSITIONS] += 1.0  # its memory is its own
    assert_identical(graph, decode(encode(graph)))


def test_what_a_record_cannot_hold_is_refused() -> None:
    graph = make_graph(Atoms("H2", positions=[[0, 0, 0], [0, 0, 1]]), 3.0, labels=True)
    with pytest.raises(ValueError, match="half_list"):
        encode(half_of(graph))
    graph[keys.EDGE_INDEX] = graph[keys.EDGE_INDEX].flip(1)
    with pytest.raises(ValueError, match="sorted by centre"):
        encode(graph)


@settings(max_examples=40, deadline=None)
@given(st.lists(structures(), min_size=1, max_size=4), st.booleans())
def test_batches_are_those_of_torch_geometric(frames: list[Atoms], labels: bool) -> None:
    graphs = [make_graph(atoms, 3.0, labels=labels) for atoms in frames]
    ours, theirs = make_batch(graphs), Batch.from_data_list(graphs)
    assert set(ours.keys()) == set(theirs.keys())
    for name, value in ours.to_dict().items():
        if isinstance(value, torch.Tensor):
            assert value.dtype == theirs[name].dtype
            assert value.numpy().tobytes() == theirs[name].numpy().tobytes()
        else:
            assert value == theirs[name]
