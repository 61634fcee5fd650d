"""The EAM's promises: derivatives, a wall whatever the parameters, smoothness, files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import STRUCTURES, hard_eam

from pretrain_mlip import EAM
from pretrain_mlip.calculators.batched import predict
from pretrain_mlip.errors import InputError
from pretrain_mlip.potentials.eam.decomposition import decompose_dimers
from pretrain_mlip.potentials.eam.form import FLAT
from pretrain_mlip.potentials.radial import flattened, switch, zbl


def random_eam(seed: int, form: str, spread: float) -> EAM:
    eam = EAM(["O", "Si"], 6.0, form)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in eam.parameters():
            value.add_(spread * torch.randn(value.shape, generator=generator, dtype=torch.float64))
    return eam.requires_grad_(False)


@given(seed=st.integers(0, 10_000), form=st.sampled_from(["alloy", "fs"]), spread=st.floats(0.0, 1.5))
@settings(max_examples=40, deadline=None)
def test_wall_holds_for_any_parameters(seed: int, form: str, spread: float) -> None:
    eam = random_eam(seed, form, spread)
    for a, b in eam.pairs:
        contact = 0.6 * eam.covalent_sum(a, b)
        distances = np.linspace(0.3 * contact, contact, 60)
        dimers = [Atoms([eam.elements[a], eam.elements[b]], positions=[[0, 0, 0], [d, 0, 0]]) for d in distances]
        assert all(labels.forces is not None and labels.forces[1, 0] > 0 for labels in predict(eam, dimers))
        # inside contact neither atom changes a density, so that nothing around the pair can turn this into attraction
        slopes = eam.pair(a, b, torch.from_numpy(distances))[1]
        assert (slopes < 0).all()
        for source, centre in ((a, b), (b, a)):
            assert (eam.density(source, centre, torch.from_numpy(distances))[1] == 0).all()


@pytest.mark.parametrize("form", ["alloy", "fs"])
def test_hand_written_derivatives(form: str) -> None:
    eam = hard_eam(form)
    distance = torch.linspace(0.4, 6.5, 400, dtype=torch.float64, requires_grad=True)
    functions = [lambda r, a=a, b=b: eam.pair(a, b, r) for a, b in eam.pairs]
    functions += [lambda r, a=a, b=b: eam.density(a, b, r) for a in range(2) for b in range(2)]
    functions += [lambda r: switch(r, 1.0, 3.0), lambda r: flattened(r, 1.0, 1.7), lambda r: zbl(r, 8, 14)]
    functions += [lambda rho: eam.embedding(torch.zeros(400, dtype=torch.int64), rho)]
    for function in functions:
        value, slope = function(distance)
        (automatic,) = torch.autograd.grad(value.sum(), distance)
        assert torch.allclose(slope, automatic, rtol=1e-12, atol=1e-12)  # the same expression up to rounding


def test_twice_continuous_at_every_join() -> None:
    eam = hard_eam()
    for a, b in eam.pairs:
        total = eam.covalent_sum(a, b)
        largest = max(eam.covalent_sum(a, other) for other in range(2))
        for join in (0.35 * total, 0.7 * total, FLAT[0] * total, FLAT[0] * largest, 0.7 * largest, 0.625 * 6.0, 6.0):
            for function in (lambda x, a=a, b=b: eam.pair(a, b, x)[1], lambda x, a=a, b=b: eam.density(a, b, x)[1]):
                far, near = (jump_of_the_derivative(function, join, width) for width in (1e-7, 1e-9))
                # across a joint of two continuous curvatures the difference shrinks with the width, a jump stays
                assert near < 0.05 * far + 1e-7


def jump_of_the_derivative(function: Callable[[torch.Tensor], torch.Tensor], place: float, width: float) -> float:
    r = torch.tensor([place - width, place + width], dtype=torch.float64, requires_grad=True)
    (derivative,) = torch.autograd.grad(function(r).sum(), r)
    return float(derivative.diff().abs())


def test_zbl_value() -> None:
    # ZBL of Si-Si at 1 Å from the textbook formula, written out independently
    x = 1.0 / (0.8854 * 0.529177210903 / (2 * 14**0.23))
    expected = (
        14.399645478
        * 14**2
        * sum(
            c * np.exp(-d * x)
            for c, d in ((0.18175, 3.1998), (0.50986, 0.94229), (0.28022, 0.4029), (0.02817, 0.20162))
        )
    )
    assert float(zbl(torch.tensor([1.0], dtype=torch.float64), 14, 14)[0]) == pytest.approx(expected, rel=1e-12)


def test_isolated_atom_has_its_e0() -> None:
    eam = hard_eam()
    (labels,) = predict(eam, [Atoms("Si")])
    assert labels.energy == -105.0
    assert eam.reference_energies() == {"O": -430.0, "Si": -105.0}


def test_decomposition_adds_up() -> None:
    eam = hard_eam("fs")
    for pair, parts in decompose_dimers(eam, points=20).items():
        symbols = pair.split("-")
        frames = [Atoms(symbols, positions=[[0, 0, 0], [r, 0, 0]]) for r in parts["r"]]
        energies = [labels.energy for labels in predict(eam, frames)]
        summed = np.sum([parts[name] for name in ("density", "morse", "wall", "atomic")], axis=0)
        # the potential interpolates between nodes 0.002 Å apart
        assert summed == pytest.approx(energies, abs=1e-7)
        assert parts["total"] == pytest.approx(np.array(energies) - parts["atomic"], abs=1e-7)


@pytest.mark.parametrize("form", ["alloy", "fs"])
def test_round_trip_through_json(form: str, tmp_path: Path) -> None:
    eam = hard_eam(form)
    eam.report = {"data_hash": "abc"}
    eam.save(tmp_path / "eam.json")
    again = EAM.load(tmp_path / "eam.json")
    assert again.report == eam.report
    assert predict(again, [STRUCTURES["triclinic"]])[0].energy == predict(eam, [STRUCTURES["triclinic"]])[0].energy


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not a readable JSON"),
        ('{"a": 1}', "not an EAM"),
        ('{"format": "pretrain-mlip-eam", "format_version": 9}', "format version 9"),
        ('{"format": "pretrain-mlip-eam", "format_version": 2, "elements": ["O"]}', "damaged"),
    ],
)
def test_refuses_other_files(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "eam.json").write_text(content)
    with pytest.raises(InputError, match=message):
        EAM.load(tmp_path / "eam.json")


def test_refuses_a_parameter_that_is_not_finite(tmp_path: Path) -> None:
    hard_eam().save(tmp_path / "eam.json")
    content = json.loads((tmp_path / "eam.json").read_text())
    content["parameters"]["linear"][0] = float("nan")
    (tmp_path / "eam.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="not finite"):
        EAM.load(tmp_path / "eam.json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["O", "Si"], 2.0), "cutoff"),
        ((["O", "O"], 6.0), "distinct"),
        ((["Oo"], 6.0), "symbols"),
        (([], 6.0), "symbols"),
        ((["O"], 6.0, "both"), "form"),
    ],
)
def test_refuses_arguments(arguments: tuple, message: str) -> None:
    with pytest.raises(InputError, match=message):
        EAM(*arguments)
