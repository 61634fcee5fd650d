"""Ours against MatGL's M3GNet with the same weights: numbers written by benchmarks/oracles/m3gnet.py."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from benchmarks.oracles.structures import structures
from benchmarks.oracles.weights import drawn_weights

from pretrain_mlip import PretrainedMLIP, build_model
from pretrain_mlip.errors import InputError
from pretrain_mlip.potentials.base import SumPotential
from pretrain_mlip.potentials.checkpoint import load_potential, save_potential
from pretrain_mlip.potentials.networks.base import Network
from pretrain_mlip.potentials.networks.from_matgl import m3gnet_state, potential_from_matgl

FIXTURES = Path(__file__).parents[2] / "fixtures" / "m3gnet"
MODELS = json.loads((FIXTURES / "models.json").read_text(encoding="utf-8"))["models"]
GAIN = 1.15  # as benchmarks/oracles/m3gnet.py has it
REFERENCE = np.load(FIXTURES / "reference.npz")
OURS: dict[str, dict[str, Any]] = {
    "default": {},
    "smooth": {"basis": "smooth", "blocks": 2},
    "uneven": {
        "radial": 2,
        "angular": 4,
        "blocks": 2,
        "cutoff": 5.5,
        "three_body_cutoff": 3.5,
        "hidden_width": 24,
        "width": 32,
        "edge_width": 16,
    },
}


def network(name: str, seed: int, dtype: str, **options: Any) -> Network:
    model = build_model(
        "m3gnet", MODELS[name]["options"]["element_types"], **{"envelope": False} | OURS[name] | options
    )
    model.set_dtype(getattr(torch, dtype))
    weights = {key: torch.from_numpy(value) for key, value in drawn_weights(MODELS[name]["shapes"], seed, GAIN).items()}
    model.load_state_dict(m3gnet_state(weights, model.settings.blocks, model.settings.width))
    return model


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", list(OURS))
def test_equals_matgl(name: str, seed: int, dtype: str) -> None:
    calculator = PretrainedMLIP(network(name, seed, dtype))
    # Float32 has seven digits, of energies up to 10 eV; MatGL adds 1e-7 to cosines that are 1, which no angle here has
    energy, forces, stress = (1e-5, 1e-4, 1e-6) if dtype == "float32" else (1e-10, 1e-10, 1e-11)
    largest = 0.0
    for structure, atoms in structures().items():
        expected = {
            key: REFERENCE[f"{dtype}/{name}/{seed}/{structure}/{key}"] for key in ("energy", "forces", "stress")
        }
        atoms.calc = calculator
        assert atoms.get_potential_energy() == pytest.approx(float(expected["energy"]), abs=energy, rel=0)
        assert atoms.get_forces() == pytest.approx(expected["forces"], abs=forces, rel=0)
        assert atoms.get_stress() == pytest.approx(expected["stress"], abs=stress, rel=0)
        largest = max(largest, float(np.abs(expected["forces"]).max()))
    assert largest > 0.01  # eV/Å: zeros would prove nothing


def test_without_the_envelope_forces_jump_at_the_cutoff() -> None:
    dimer = Atoms("SiO", positions=[[0, 0, 0], [5.0 - 1e-5, 0, 0]])
    with_envelope, without = (
        np.abs(PretrainedMLIP(network("default", 1, "float64", envelope=choice)).get_forces(dimer)).max()
        for choice in (True, False)
    )
    assert with_envelope < 1e-9
    assert without > 1e-5


@pytest.mark.parametrize("folder", ["model", "potential"])
def test_saved_by_matgl(folder: str, tmp_path: Path) -> None:
    potential = potential_from_matgl(FIXTURES / folder)
    assert isinstance(potential, SumPotential) == (folder == "potential")
    save_potential(tmp_path / "ours.pt", potential)
    again = load_potential(tmp_path / "ours.pt")
    for atoms in structures().values():
        energies = [PretrainedMLIP(each).get_potential_energy(atoms) for each in (potential, again)]
        assert energies[0] == energies[1]


def test_scale_and_reference_energies_of_a_saved_potential() -> None:
    calculator = PretrainedMLIP.from_matgl(FIXTURES / "potential", device="cpu", dtype="float64")
    for structure, atoms in structures().items():
        atoms.calc = calculator
        energy, forces = (REFERENCE[f"checkpoint/{structure}/{key}"] for key in ("energy", "forces"))
        # The weights are in float32 on both sides, but MatGL's constants too
        assert atoms.get_potential_energy() == pytest.approx(float(energy), abs=1e-5, rel=0)
        assert atoms.get_forces() == pytest.approx(forces, abs=1e-5, rel=0)


def _edit_config(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    file = folder / "model.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    change(content)
    file.write_text(json.dumps(content), encoding="utf-8")


def _edit_state(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    state = torch.load(folder / "state.pt", weights_only=True)
    change(state)
    torch.save(state, folder / "state.pt")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "state.pt").unlink(), "state.pt: no such file"),
        (lambda f: (f / "model.json").write_text("{", encoding="utf-8"), "model.json: not a configuration"),
        (lambda f: (f / "model.json").write_text("[]", encoding="utf-8"), "model.json: not a configuration"),
        (lambda f: (f / "state.pt").write_bytes((f / "state.pt").read_bytes()[:900]), "not a readable checkpoint"),
        (lambda f: torch.save([1], f / "state.pt"), "not a dictionary of tensors"),
        (lambda f: _edit_config(f, lambda c: c["kwargs"]["model"].update({"@class": "CHGNet"})), "class CHGNet"),
        (lambda f: _edit_config(f, lambda c: c["kwargs"].update(calc_repuls=True)), "calc_repuls=True"),
        (lambda f: _edit_config(f, lambda c: c["kwargs"]["model"]["init_args"].update(use_phi=True)), "use_phi=True"),
        (lambda f: _edit_config(f, lambda c: c["kwargs"]["model"]["init_args"].pop("is_intensive")), "is_intensive"),
        (lambda f: _edit_config(f, lambda c: c["kwargs"]["model"]["init_args"].update(units=9)), "does not fit"),
        (lambda f: _edit_config(f, lambda c: c["kwargs"]["model"]["init_args"].update(cutoff=-1)), "cutoff"),
        (lambda f: _edit_config(f, lambda c: c["kwargs"].update(dispersion="d3")), "dispersion: options that"),
        (lambda f: _edit_config(f, lambda c: c["kwargs"]["model"]["init_args"].update(new=1)), "new: options that"),
        (lambda f: _edit_state(f, lambda s: s.update({"model.repulsion.scale": torch.ones(1)})), "repulsion.scale"),
        (lambda f: _edit_state(f, lambda s: s.update(data_std=torch.tensor(math.nan))), "data_std nan"),
        (lambda f: _edit_state(f, lambda s: s.update(data_mean=torch.tensor(2.0))), "data_mean"),
        (lambda f: _edit_state(f, lambda s: s.pop("model.final_layer.gated.gates.6.bias")), "readout.gate.3.bias"),
        (lambda f: _edit_state(f, lambda s: s.pop("model.embedding.layer_node_embedding.weight")), "is missing"),
        (
            lambda f: _edit_state(f, lambda s: s.update({"element_refs.property_offset": torch.zeros(89)})),
            "89",
        ),
    ],
)
def test_what_cannot_be_converted_is_named(tmp_path: Path, damage: Callable[[Path], Any], message: str) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(FIXTURES / "potential", folder)
    damage(folder)
    with pytest.raises(InputError, match=message):
        potential_from_matgl(folder)
