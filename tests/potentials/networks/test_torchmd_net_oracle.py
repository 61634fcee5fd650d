"""Energies and forces of TorchMD-NET 3.1.0 itself, see benchmarks/oracles/torchmd_net.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from benchmarks.oracles.weights import drawn_weights

from pretrain_mlip.calculators.ase import PretrainedMLIP
from pretrain_mlip.calculators.batched import predict
from pretrain_mlip.errors import InputError
from pretrain_mlip.potentials.base import Potential, SumPotential
from pretrain_mlip.potentials.checkpoint import load_potential, save_potential
from pretrain_mlip.potentials.networks.from_torchmd_net import potential_from_torchmd_net

FOLDER = Path(__file__).parents[2] / "fixtures" / "torchmd_net"
STRUCTURES = ["Si-O", "P", "Li-Mn-P-O", "molecule"]
CHECKPOINT = FOLDER / "narrow.ckpt"
# Of single precision: sums of some hundred energies of 0.1 eV, and of as many terms of a force
TOLERANCES = {32: (1e-5, 1e-4), 64: (1e-8, 1e-8)}


@pytest.fixture(scope="module")
def references() -> dict[str, Any]:
    with np.load(FOLDER / "references.npz") as content:
        arrays = dict(content)
    return {**arrays, **json.loads(str(arrays["settings"]))}


def stored(references: dict[str, Any], name: str) -> Atoms:
    cell = references[f"{name}/cell"].astype(float)
    positions = references[f"{name}/positions"].astype(float)
    return Atoms(references[f"{name}/numbers"], positions=positions, cell=cell, pbc=bool(cell.any()))


def drawn(references: dict[str, Any], folder: Path, size: str, precision: int, seed: int) -> Potential:
    options = {**references["options"], **references["sizes"][size], "precision": precision}
    radial = options["num_rbf"]
    start = torch.exp(torch.tensor(-options["cutoff_upper"]))
    state = {
        name: torch.from_numpy(values) for name, values in drawn_weights(references["shapes"][size], seed).items()
    } | {
        "representation_model.distance_expansion.means": torch.linspace(float(start), 1, radial),
        "representation_model.distance_expansion.betas": ((2 / radial * (1 - start)) ** -2).expand(radial),
        "mean": torch.zeros(()),
        "std": torch.ones(()),
    }
    path = folder / f"{size}.ckpt"
    content = {"hyper_parameters": options, "state_dict": {f"model.{name}": value for name, value in state.items()}}
    torch.save(content, path)
    return potential_from_torchmd_net(path, ["H", "Li", "O", "Si", "P", "Mn"])


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("precision", [32, 64])
@pytest.mark.parametrize("size", ["full", "narrow"])
def test_energies_and_forces(references: dict[str, Any], tmp_path: Path, size: str, precision: int, seed: int) -> None:
    potential = drawn(references, tmp_path, size, precision, seed)
    energy_tolerance, force_tolerance = TOLERANCES[precision]
    for name in STRUCTURES:
        (found,) = predict(potential, [stored(references, name)])
        key = f"{size}/{precision}/{seed}/{name}"
        assert found.energy == pytest.approx(float(references[f"{key}/energy"]), abs=energy_tolerance)
        assert found.forces == pytest.approx(references[f"{key}/forces"], abs=force_tolerance)


def written_by_trainer() -> tuple[Atoms, float, np.ndarray]:
    content = json.loads((FOLDER / "narrow.json").read_text(encoding="utf-8"))
    return Atoms(content["numbers"], positions=content["positions"]), content["energy"], np.array(content["forces"])


def test_checkpoint_of_the_trainer(tmp_path: Path) -> None:
    atoms, energy, forces = written_by_trainer()
    potential = potential_from_torchmd_net(CHECKPOINT, ["O", "Si", "H"])
    assert isinstance(potential, SumPotential)
    (found,) = predict(potential, [atoms])
    # The original adds references of some hundred eV in single precision, of which the last digit is 6e-5 eV
    assert found.energy == pytest.approx(energy, abs=1e-4)
    assert found.forces == pytest.approx(forces, abs=1e-4)
    save_potential(tmp_path / "ours.pt", potential)
    (again,) = predict(load_potential(tmp_path / "ours.pt"), [atoms])
    assert again.energy == found.energy
    assert (again.forces == found.forces).all()


def test_all_elements_by_default() -> None:
    potential = potential_from_torchmd_net(CHECKPOINT)
    assert len(potential.elements) == 19
    assert (potential.elements[0], potential.elements[-1]) == ("H", "K")
    atoms, energy, _ = written_by_trainer()
    atoms.calc = PretrainedMLIP.from_torchmd_net(CHECKPOINT, device="cpu")
    assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-4)


def changed(folder: Path, **changes: Any) -> Path:
    """The checkpoint with other options, or without those that are None."""
    content = torch.load(CHECKPOINT, weights_only=True)
    options = {**content["hyper_parameters"], **changes}
    content["hyper_parameters"] = {name: value for name, value in options.items() if value is not None}
    path = folder / "changed.ckpt"
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    "change",
    [
        {"model": "tensornet"},
        {"output_model": "DipoleMoment"},
        {"activation": "tanh"},
        {"attn_activation": "ssp"},
        {"rbf_type": "gauss"},
        {"distance_influence": "keys"},
        {"neighbor_embedding": False},
        {"cutoff_lower": 0.5},
        {"reduce_op": "mean"},
        {"atom_filter": 1},
        {"precision": 16},
        {"prior_model": ["ZBL"]},
        {"prior_model": ["Atomref", "D2"]},
    ],
)
def test_unsupported_options_are_named(tmp_path: Path, change: dict[str, Any]) -> None:
    path = changed(tmp_path, **change)
    ((option, value),) = change.items()
    with pytest.raises(InputError) as raised:
        potential_from_torchmd_net(path)
    message = str(raised.value)
    assert str(path) in message
    assert option in message
    assert str(value[0] if isinstance(value, list) else value) in message


def test_prior_switched_off(tmp_path: Path) -> None:
    path = changed(tmp_path, prior_args=[{"max_z": 20, "trainable": False, "enable": False}])
    atoms, energy, _ = written_by_trainer()
    references = -13.6 * atoms.numbers.sum()
    (found,) = predict(potential_from_torchmd_net(path), [atoms])
    assert found.energy == pytest.approx(energy - references, abs=1e-4)


def test_mean_is_refused(tmp_path: Path) -> None:
    content = torch.load(CHECKPOINT, weights_only=True)
    content["state_dict"]["model.mean"] = torch.tensor(-3.0)
    torch.save(content, tmp_path / "mean.ckpt")
    with pytest.raises(InputError, match=r"mean\.ckpt: mean = -3\.0 is not supported"):
        potential_from_torchmd_net(tmp_path / "mean.ckpt")


def test_names_of_old_versions(tmp_path: Path) -> None:
    content = torch.load(CHECKPOINT, weights_only=True)
    content["state_dict"] = {
        name.replace("update_net.layers.", "update_net."): value
        for name, value in content["state_dict"].items()
        if "distance.box" not in name
    }
    torch.save(content, tmp_path / "old.ckpt")
    atoms, energy, _ = written_by_trainer()
    (found,) = predict(potential_from_torchmd_net(tmp_path / "old.ckpt"), [atoms])
    assert found.energy == pytest.approx(energy, abs=1e-4)


def test_elements_without_a_row() -> None:
    with pytest.raises(InputError, match=r"narrow\.ckpt: no row for element Mn; those there are: H to K"):
        potential_from_torchmd_net(CHECKPOINT, ["O", "Mn"])


def damaged(folder: Path, how: str) -> Path:
    path = folder / f"{how}.ckpt"
    data = CHECKPOINT.read_bytes()
    content = torch.load(CHECKPOINT, weights_only=True)
    name = "model.representation_model.attention_layers.1.q_proj.weight"
    if how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif how == "text":
        path.write_text("not a checkpoint\n", encoding="utf-8")
    elif how == "code":
        torch.save({"hyper_parameters": {}, "state_dict": {}, "code": Path}, path)
    elif how == "list":
        torch.save([1, 2], path)
    elif how == "no weights":
        torch.save({**content, "state_dict": {}}, path)
    elif how == "one missing":
        content["state_dict"].pop(name)
        torch.save(content, path)
    elif how == "one too many":
        content["state_dict"]["model.representation_model.attention_layers.2.q_proj.weight"] = torch.zeros(16, 16)
        torch.save(content, path)
    elif how == "wrong shape":
        content["state_dict"][name] = torch.zeros(16, 8)
        torch.save(content, path)
    elif how == "not a tensor":
        content["state_dict"][name] = "zero"
        torch.save(content, path)
    elif how == "heads":
        content["hyper_parameters"]["num_heads"] = 3
        torch.save(content, path)
    return path


@pytest.mark.parametrize(
    "how",
    [
        *["missing", "truncated", "text", "code", "list", "no weights"],
        *["one missing", "one too many", "wrong shape", "not a tensor", "heads"],
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, how: str) -> None:
    path = damaged(tmp_path, how)
    with pytest.raises(InputError) as raised:
        potential_from_torchmd_net(path)
    assert str(path) in str(raised.value)
