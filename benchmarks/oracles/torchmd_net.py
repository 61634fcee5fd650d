"""Energies and forces of TorchMD-NET's equivariant transformer, written as fixtures for our tests.

Run by a Python that has torchmd-net 3.1.0, from the root of the repository:

    python -m benchmarks.oracles.torchmd_net tests/fixtures/torchmd_net

Weights are drawn from their names (weights.py), so that they need not be stored. Prints what the deviations of our
defaults from the original amount to, and what the original loses in a cell smaller than twice the cutoff.
"""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.build import molecule
from ase.spacegroup import crystal
from benchmarks.oracles.weights import drawn_weights
from lightning import Trainer
from torchmdnet.models import utils
from torchmdnet.models.model import create_model, load_model
from torchmdnet.module import LNNP
from torchmdnet.priors import Atomref

torch.set_num_threads(1)
warnings.filterwarnings("ignore")
SIZES = {
    "full": {"embedding_dimension": 128, "num_layers": 6, "num_heads": 8, "num_rbf": 64, "cutoff_upper": 5.0},
    "narrow": {"embedding_dimension": 32, "num_layers": 3, "num_heads": 4, "num_rbf": 20, "cutoff_upper": 4.5},
}
SEEDS = (0, 1)
OPTIONS = {
    "model": "equivariant-transformer",
    "output_model": "Scalar",
    "activation": "silu",
    "attn_activation": "silu",
    "rbf_type": "expnorm",
    "trainable_rbf": False,
    "neighbor_embedding": True,
    "distance_influence": "both",
    "cutoff_lower": 0.0,
    "max_z": 100,
    "max_num_neighbors": 200,
    "derivative": True,
    "atom_filter": -1,
    "prior_model": None,
    "reduce_op": "add",
    "vector_cutoff": True,
    "precision": 32,
}


def rattled(atoms: Atoms, size: float = 0.1) -> Atoms:
    atoms.positions += np.random.default_rng(len(atoms)).normal(scale=size, size=atoms.positions.shape)
    return atoms


def cristobalite(repeat: int) -> Atoms:
    basis, cell = [(0.125, 0.125, 0.125), (0, 0, 0)], [7.16, 7.16, 7.16, 90, 90, 90]
    return crystal(["Si", "O"], basis, spacegroup=227, setting=2, cellpar=cell) * repeat


def structures() -> dict[str, Atoms]:
    """Cells are lower triangular and at least twice the cutoff wide, as the program demands."""
    silica = cristobalite(2)
    silica.set_cell(silica.cell.array @ np.array([[1, 0, 0], [0.1, 0.98, 0], [-0.07, 0.12, 1.03]]), scale_atoms=True)
    phosphorus = crystal("P", [(0, 0.10168, 0.08056)], spacegroup=64, cellpar=[3.3136, 10.478, 4.3763, 90, 90, 90])
    olivine = crystal(
        ["Li", "Mn", "P", "O", "O", "O"],
        basis=[
            *[(0, 0, 0), (0.2817, 0.25, 0.9719), (0.0923, 0.25, 0.4081)],
            *[(0.0969, 0.25, 0.7336), (0.4562, 0.25, 0.2094), (0.1609, 0.0490, 0.2781)],
        ],
        spacegroup=62,
        cellpar=[10.447, 6.104, 4.746, 90, 90, 90],
    )
    return {
        "Si-O": rattled(silica),
        "P": rattled(phosphorus * (4, 1, 3)),
        "Li-Mn-P-O": rattled(olivine * (1, 2, 3)),
        "molecule": rattled(molecule("Si2H6") + Atoms("O", [[3.0, 0.5, 0.4]])),
    }


def draw(model: torch.nn.Module, seed: int) -> dict[str, list[int]]:
    """Fill what is trainable; the names and shapes of it."""
    shapes = {name: list(values.shape) for name, values in model.named_parameters() if values.requires_grad}
    drawn = {name: torch.from_numpy(values) for name, values in drawn_weights(shapes, seed).items()}
    model.load_state_dict(drawn, strict=False)
    return shapes


def evaluate(model: torch.nn.Module, atoms: Atoms, dtype: torch.dtype) -> tuple[float, np.ndarray]:
    """Energy, eV, and forces, eV/Å."""
    box = torch.tensor(atoms.cell.array, dtype=dtype) if atoms.pbc.any() else None
    numbers = torch.tensor(atoms.numbers)
    energy, forces = model(numbers, torch.tensor(atoms.positions, dtype=dtype), torch.zeros_like(numbers), box=box)
    return float(energy.detach()), forces.detach().numpy()


def write_references(folder: Path) -> None:
    everything: dict[str, np.ndarray] = {}
    shapes = {}
    for name, atoms in structures().items():
        everything |= {
            f"{name}/numbers": atoms.numbers.astype(np.int16),
            f"{name}/positions": atoms.positions.astype(np.float32),  # exactly what both programs get
            f"{name}/cell": atoms.cell.array.astype(np.float32),
        }
    for size, options in SIZES.items():
        for precision, dtype in ((32, torch.float32), (64, torch.float64)):
            for seed in SEEDS:
                model = create_model({**OPTIONS, **options, "precision": precision}).eval()
                shapes[size] = draw(model, seed)
                for name in structures():
                    energy, forces = evaluate(model, stored(everything, name), dtype)
                    key = f"{size}/{precision}/{seed}/{name}"
                    everything[f"{key}/energy"] = np.array(energy)
                    everything[f"{key}/forces"] = forces
                    print(f"{key}: {energy:.6f} eV, root mean square of forces {np.sqrt((forces**2).mean()):.3f} eV/Å")
    settings = {"options": OPTIONS, "sizes": SIZES, "shapes": shapes}
    np.savez_compressed(folder / "references.npz", settings=np.array(json.dumps(settings)), **everything)


def stored(everything: dict[str, np.ndarray], name: str) -> Atoms:
    cell = everything[f"{name}/cell"].astype(float)
    positions = everything[f"{name}/positions"].astype(float)
    return Atoms(everything[f"{name}/numbers"], positions=positions, cell=cell, pbc=bool(cell.any()))


def write_checkpoint(folder: Path) -> None:
    """What the program's own trainer writes, with a standard deviation and reference energies."""
    torch.manual_seed(0)
    options = {
        **OPTIONS,
        "embedding_dimension": 16,
        "num_layers": 2,
        "num_heads": 2,
        "num_rbf": 12,
        "cutoff_upper": 4.5,
        "trainable_rbf": True,
        "vector_cutoff": False,
        "max_z": 20,
        "prior_model": ["Atomref"],
        "prior_args": [{"max_z": 20, "trainable": False, "enable": True}],
        "load_model": None,
        "remove_ref_energy": False,
    }
    prior = Atomref(max_z=20)
    prior.initial_atomref.copy_(-13.6 * torch.arange(20.0)[:, None])
    prior.reset_parameters()
    module = LNNP(options, prior_model=[prior], std=torch.tensor(2.5))
    draw(module.model, 5)
    trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", barebones=True)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(folder / "narrow.ckpt", weights_only=True)
    model = load_model(str(folder / "narrow.ckpt"))
    atoms = structures()["molecule"]
    energy, forces = evaluate(model, atoms, torch.float32)
    reference = {"numbers": atoms.numbers, "positions": atoms.positions, "energy": energy, "forces": forces}
    lists = {name: np.asarray(value).tolist() for name, value in reference.items()}
    (folder / "narrow.json").write_text(json.dumps(lists) + "\n", encoding="utf-8")


def polynomial(self: utils.CosineCutoff, distances: torch.Tensor) -> torch.Tensor:
    x = (distances / self.cutoff_upper).clamp(max=1.0)
    return 1 - 28 * x**6 + 48 * x**7 - 21 * x**8


def softened(self: utils.GatedEquivariantBlock, x: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = (self.vec1_proj(v).square().sum(-2) + 1e-4).sqrt() - 1e-2
    x, gate = self.update_net(torch.cat([x, lengths], dim=-1)).chunk(2, dim=-1)
    v = gate.unsqueeze(1) * self.vec2_proj(v)
    return (x if self.act is None else self.act(x)), v


def print_deviations() -> None:
    """Root mean squares over structures, float64, of weights that nobody trained."""
    changes = {
        "polynomial envelope": [(utils.CosineCutoff, polynomial)],
        "softened norms, 0.01": [(utils.GatedEquivariantBlock, softened)],
        "both": [(utils.CosineCutoff, polynomial), (utils.GatedEquivariantBlock, softened)],
    }
    model = create_model({**OPTIONS, **SIZES["full"], "precision": 64}).eval()
    draw(model, 0)
    print(f"\n{'change':24s} {'structure':10s} {'energy, meV/atom':>17s} {'forces, meV/Å':>14s} {'of, meV/Å':>10s}")
    for change, patches in changes.items():
        for name, atoms in structures().items():
            energy, forces = evaluate(model, atoms, torch.float64)
            originals = [(place, place.forward) for place, _ in patches]
            for place, forward in patches:
                place.forward = forward
            other, others = evaluate(model, atoms, torch.float64)
            for place, forward in originals:
                place.forward = forward
            row = (1e3 * (other - energy) / len(atoms), 1e3 * np.sqrt(((others - forces) ** 2).mean()))
            print(f"{change:24s} {name:10s} {row[0]:17.3f} {row[1]:14.3f} {1e3 * np.sqrt((forces**2).mean()):10.1f}")
    small = rattled(cristobalite(1))
    large = small * 2
    lost, lost_forces = evaluate(model, small, torch.float64)
    energy, forces = evaluate(model, large, torch.float64)
    row = (1e3 * (lost - energy / 8) / 24, 1e3 * np.sqrt(((lost_forces - forces[:24]) ** 2).mean()))
    scale = 1e3 * np.sqrt((forces**2).mean())
    print(f"{'lost pairs, 7.16 Å cell':24s} {'Si-O':10s} {row[0]:17.3f} {row[1]:14.3f} {scale:10.1f}")


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    write_references(target)
    write_checkpoint(target)
    print_deviations()
