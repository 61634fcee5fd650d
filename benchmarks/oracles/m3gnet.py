"""Reference numbers of MatGL's M3GNet, which tests/potentials/networks/test_m3gnet_oracle.py compares ours with.

Runs in an environment of its own, from the root of the repository:

    python3 -m venv ve && ve/bin/pip install torch==2.13.0 matgl==4.1.2
    ve/bin/python -m benchmarks.oracles.m3gnet tests/fixtures/m3gnet
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matgl
import matgl.layers._basis
import numpy as np
import torch
from benchmarks.oracles.structures import structures
from benchmarks.oracles.weights import drawn_weights
from matgl.apps.pes import Potential
from matgl.ext.ase import PESCalculator
from matgl.models import M3GNet

ELEMENTS = ("Li", "O", "P", "Si", "Mn")
MODELS: dict[str, dict[str, Any]] = {
    "default": {"element_types": ELEMENTS, "is_intensive": False},
    "smooth": {"element_types": ELEMENTS, "is_intensive": False, "use_smooth": True, "nblocks": 2},
    "uneven": {
        "element_types": ELEMENTS,
        "is_intensive": False,
        "max_n": 2,
        "max_l": 4,
        "nblocks": 2,
        "cutoff": 5.5,
        "threebody_cutoff": 3.5,
        "units": 24,
        "dim_node_embedding": 32,
        "dim_edge_embedding": 16,
    },
}
SEEDS = (1, 2)
GAIN = 1.15  # of weights: with less, forces are too small to compare; with more, energies leave float32 behind
CHECKPOINT_OPTIONS = MODELS["uneven"] | {"nblocks": 1, "units": 8, "dim_node_embedding": 8, "dim_edge_embedding": 8}


def precise() -> None:
    """Constants in float64 as well: MatGL reads its table of roots in float32, which limits agreement to 1e-7."""
    matgl.set_default_dtype("float", 64)
    table = np.load(Path(matgl.__file__).parent / "utils" / "sb_roots.npy")
    matgl.layers._basis.SPHERICAL_BESSEL_ROOTS = torch.tensor(table, dtype=torch.float64)


def set_weights(model: torch.nn.Module, seed: int) -> dict[str, list[int]]:
    """Give every parameter its random value; returns names and shapes."""
    shapes = {name: list(value.shape) for name, value in model.named_parameters()}
    values = drawn_weights(shapes, seed, GAIN)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(values[name]))
    return shapes


def results(potential: Potential) -> dict[str, dict[str, Any]]:
    """Energy (eV), forces (eV/Å) and stress (eV/Å³, Voigt) of every structure."""
    calculator = PESCalculator(potential, stress_unit="eV/A3")
    found = {}
    for name, atoms in structures().items():
        atoms.calc = calculator
        found[name] = {
            "energy": float(atoms.get_potential_energy()),
            "forces": np.asarray(atoms.get_forces(), dtype=np.float64),
            "stress": np.asarray(atoms.get_stress(), dtype=np.float64),
        }
    return found


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    description: dict[str, Any] = {"matgl": matgl.__version__, "models": {}}
    arrays: dict[str, np.ndarray] = {}

    def keep(prefix: str, found: dict[str, dict[str, Any]]) -> None:
        for structure, values in found.items():
            for quantity, value in values.items():
                arrays[f"{prefix}/{structure}/{quantity}"] = np.asarray(value)

    for dtype in ("float32", "float64"):
        if dtype == "float64":
            precise()
        for name, options in MODELS.items():
            for seed in SEEDS:
                model = M3GNet(**options).to(getattr(torch, dtype))
                shapes = set_weights(model, seed)
                description["models"][name] = {"options": options, "shapes": shapes}
                potential = Potential(model).to(getattr(torch, dtype)).eval()
                keep(f"{dtype}/{name}/{seed}", results(potential))
    model = M3GNet(**CHECKPOINT_OPTIONS)
    set_weights(model, 3)
    model.save(folder / "model")
    potential = Potential(model, data_std=1.7, element_refs=np.linspace(-3.0, -1.0, len(ELEMENTS))).double().eval()
    potential.float().save(folder / "potential")
    keep("checkpoint", results(potential.double()))
    (folder / "models.json").write_text(json.dumps(description, indent=1) + "\n")
    np.savez_compressed(folder / "reference.npz", **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
