"""A made-up run with plausible numbers, small and the same at every call."""

from __future__ import annotations

from typing import Any

import numpy as np

from pretrain_mlip.dynamics.failure import Failure
from pretrain_mlip.dynamics.kaplan_meier import survival_curve, survival_summary
from pretrain_mlip.dynamics.md import MDSettings, Thermo
from pretrain_mlip.dynamics.survival import ReplicaResult
from pretrain_mlip.report.results import Results

FORCES = {"eam": 213.0, "vanilla": 217.0, "pretrain": 234.0, "finetune": 155.0, "delta": 153.4}
ENERGIES = {"eam": 6.7, "vanilla": 18.8, "pretrain": 36.6, "finetune": 11.4, "delta": 7.32}
LIFE = {"eam": 50.0, "vanilla": 0.8, "pretrain": 3.0, "finetune": 2.2, "delta": 50.0}  # ps
PAIRS = {"O-O": (1.32, 2.2, 0.3), "O-Si": (1.77, 1.62, 3.0), "Si-Si": (2.22, 2.9, 0.5)}  # covalent sum, r0, depth
MODELS = list(FORCES)


def fake_results() -> Results:
    rng = np.random.default_rng(7)
    return Results.model_validate(
        {
            "title": "Silica: CGCNN pretrained on an embedded-atom potential",
            "provenance": provenance(),
            "dataset": {
                "name": "silica_mini",
                "frames": 78,
                "atoms": 1872,
                "elements": ["O", "Si"],
                "config_types": {"cristobalite_300K": 20, "glass": 18, "melt_4000K": 40},
                "closest": {"O-O": 1.47, "O-Si": 1.14, "Si-Si": 2.27},
                "pretraining_frames": 2400,
            },
            "splits": {"train": 54, "val": 12, "test": 12},
            "eam": eam(rng),
            "errors": {model: error_rows(model) for model in MODELS},
            "seed_errors": {
                model: [error_row(model, s) for s in (0.97, 1.0, 1.05)] for model in MODELS if model != "eam"
            },
            "parity": {model: parity(model, rng) for model in MODELS},
            "learning": {model: learning(model, rng) for model in MODELS if model != "eam"},
            "dimers": {model: {pair: dimer(model, pair) for pair in PAIRS} for model in MODELS},
            "dimer_metrics": {model: {pair: metrics(model, pair) for pair in PAIRS} for model in MODELS},
            "eam_decomposition": {pair: decomposition(pair) for pair in PAIRS},
            "survival": {model: survival(LIFE[model], rng) for model in MODELS},
            "squeeze": {model: survival(LIFE[model] ** 1.5, rng) for model in MODELS},
            "rdf": rdf(),
            "verification": {model: verification(model) for model in MODELS},
            "phonons": {"quartz": {model: phonons(model) for model in MODELS}},
            "pair_distances": {pair: distances(pair) for pair in PAIRS},
            "timings": {"fit EAM": 41.2, "label": 18.0, "pretrain": 512.3, "finetune": 388.1, "MD": 620.9},
            "config": {"model": {"name": "cgcnn", "width": 64, "layers": 3}, "stability": {"replicas": 8}},
        }
    )


def provenance() -> dict[str, Any]:
    return {
        "created": "2026-01-31T12:00:00+00:00",
        "command": "pretrain-mlip run examples/silica.yaml training.epochs=60",
        "versions": {"pretrain-mlip": "0.1.0", "python": "3.11.7", "torch": "2.6.0", "ase": "3.24.0"},
        "hardware": {"processor": "AMD EPYC 9654", "threads": 2, "memory_GiB": 7.6, "gpu": "none"},
        "seeds": {"split": 0, "training": [0, 1, 2], "md": 0},
        "data": [{"path": "data/silica_mini.extxyz", "sha256": "9f2c" * 16, "frames": 78}],
    }


def error_row(model: str, scale: float = 1.0) -> dict[str, Any]:
    return {
        "frames": 12,
        "atoms": 288,
        "energy_mae": ENERGIES[model] * scale,
        "energy_rmse": 1.3 * ENERGIES[model] * scale,
        "forces_mae": FORCES[model] * scale,
        "forces_rmse": 1.5 * FORCES[model] * scale,
        "forces_rms_reference": 1340.0,
        "stress_mae": 0.01 * FORCES[model] * scale,
        "stress_rmse": 0.014 * FORCES[model] * scale,
    }


def error_rows(model: str) -> dict[str, Any]:
    kinds = {"cristobalite_300K": 0.5, "glass": 0.8, "melt_4000K": 1.4, "all": 1.0}
    return {kind: error_row(model, scale) for kind, scale in kinds.items()}


def eam(rng: np.random.Generator) -> dict[str, Any]:
    steps = np.arange(120)
    row = error_row("eam")
    return {
        "elements": ["O", "Si"],
        "pairs": list(PAIRS),
        "cutoff": 8.0,
        "form": "eam/alloy",
        "parameters": 31,
        "errors": {
            "train": error_row("eam", 0.9),
            "test": row,
            "baseline": {"frames": 12, "atoms": 288, "energy_rmse": 820.0},
        },
        "starts": [np.geomspace(2.0, 0.08 + shift, 30).tolist() for shift in rng.exponential(0.03, 6)],
        "convergence": (0.08 + 1.2 * np.exp(-steps / 12) + 0.1 / (1 + steps / 4)).tolist(),
        "repulsive": dict.fromkeys(PAIRS, True),
    }


def parity(model: str, rng: np.random.Generator) -> dict[str, Any]:
    forces = rng.standard_t(3, 600) * 0.8
    energy = rng.normal(0, 0.25, 12)
    # The mean absolute error of a normal distribution is 0.8 sigma.
    guess = forces + rng.normal(0, FORCES[model] / 800, 600)
    return {
        "forces": {"reference": forces.tolist(), "predicted": guess.tolist()},
        "energy": {
            "reference": energy.tolist(),
            "predicted": (energy + rng.normal(0, ENERGIES[model] / 800, 12)).tolist(),
        },
    }


def learning(model: str, rng: np.random.Generator) -> dict[str, Any]:
    epochs = np.arange(1, 61)
    only_pretrained = model == "pretrain"
    start = 3.0 if model == "vanilla" else 1.3
    decay = 1 + start * np.exp(-epochs / 12) + rng.normal(0, 0.02, 60)
    return {
        "epoch": epochs.tolist(),
        "step": (epochs * 14).tolist(),
        "dft_steps": (epochs * 0 if only_pretrained else epochs * 14).tolist(),
        "train_loss": decay.tolist(),
        "val_energy_mae": (ENERGIES[model] * decay**1.5).tolist(),
        "val_forces_mae": (FORCES[model] * decay).tolist(),
    }


def dimer(model: str, pair: str) -> dict[str, Any]:
    covalent, r0, depth = PAIRS[pair]
    r = np.linspace(0.4, 8.0, 120)
    well = depth * ((1 - np.exp(-2.2 * (r - r0))) ** 2 - 1) * np.exp(-((r / 6) ** 4))
    if model == "vanilla":
        well = -1.5 * depth * np.exp(-(((r - r0) / 0.7) ** 2)) + 3.0 / (
            1 + np.exp((r - 0.7 * covalent) / 0.15)
        ) * np.cos(3 * r)
    elif model == "finetune":
        well = np.clip(well, None, 30) - 3 * np.exp(-r)
    energy = well - well[-1]
    energy[0] = np.nan if model == "vanilla" else energy[0]
    return {"r": r.tolist(), "energy": energy.tolist(), "force": (-np.gradient(energy, r)).tolist()}


def metrics(model: str, pair: str) -> dict[str, Any]:
    weak = model == "vanilla" and pair != "O-O"
    return {
        "contact": 0.6 * PAIRS[pair][0],
        "wall_0.5": 1.1 if weak else 431.0,
        "wall_1.0": 0.4 if weak else 61.2,
        "repulsive_at_contact": not weak,
        "turning_points": 3 if weak else 0,
        "well_depth": PAIRS[pair][2],
        "well_distance": PAIRS[pair][1],
        "finite": True,
    }


def decomposition(pair: str) -> dict[str, Any]:
    _, r0, depth = PAIRS[pair]
    r = np.linspace(0.8, 8.0, 100)
    part = 0.6 * depth * ((1 - np.exp(-2.2 * (r - r0))) ** 2 - 1)
    density = -1.2 * depth * np.exp(-r / 2.2)
    atomic = np.full(100, -9.0)
    columns = {"r": r, "density": density, "pair": part, "atomic": atomic, "total": density + part + atomic}
    return {key: values.tolist() for key, values in columns.items()}


def survival(life: float, rng: np.random.Generator) -> dict[str, Any]:
    settings = MDSettings()
    results = []
    for k in range(8):
        died = float(min(rng.weibull(2.0) * life, 3.0))
        time = np.arange(0, died + 1e-9, 0.03)
        target = 300 + 1900 * time
        heat = target * (1 + rng.normal(0, 0.08, time.size))
        thermo = Thermo(time.tolist(), heat.tolist(), target.tolist(), (0 * time).tolist(), (0 * time).tolist())
        failed = died < 3.0
        check = "too_close" if k % 3 else "too_hot"
        failure = Failure(check, round(died * 1000), died * 1000, (3, 7), 0.61, 0.885, "Å", "O-Si") if failed else None
        outcome = "failed" if failed else "completed"
        results.append(ReplicaResult("model", k, 0, k, outcome, died, failure, thermo=thermo))
    curve = survival_curve([r.time_ps for r in results], [r.outcome != "completed" for r in results])
    summary = survival_summary(results, settings.duration_ps)
    return {"replicas": [r.to_dict() for r in results], "curve": curve, "summary": summary}


def rdf() -> dict[str, Any]:
    r = np.linspace(0.025, 5.975, 120)

    def one(shift: float, width: float) -> dict[str, Any]:
        partials = {}
        for pair, (_, r0, _) in PAIRS.items():
            first = 1.2 * r0 if pair == "O-O" else r0
            peak = 4 * np.exp(-(((r - first - shift) / width) ** 2)) + 1 / (1 + np.exp(-(r - 1.5 * first) / 0.3))
            partials[pair] = peak.tolist()
        total = np.mean(list(partials.values()), axis=0).tolist()
        return {"r": r.tolist(), "total": total, "partials": partials, "coordination": {}, "frames": 120}

    return {
        "reference": one(0.0, 0.15),
        "models": {
            "eam": one(0.05, 0.2),
            "vanilla": one(0.08, 0.25),
            "finetune": one(0.01, 0.15),
            "delta": one(0.0, 0.16),
        },
        "mae": {
            model: dict.fromkeys([*PAIRS, "total"], value)
            for model, value in {"eam": 0.14, "vanilla": 0.21, "finetune": 0.043, "delta": 0.051}.items()
        },
        "description": "Melt at 3000 K; DFT frames of the same density.",
    }


def verification(model: str) -> dict[str, Any]:
    failed = model == "vanilla"
    return {
        "forces-numerical-derivative": {
            "category": "mandatory",
            "grade": "A",
            "error": 3e-10,
            "detail": "largest for O",
        },
        "objectivity": {"category": "mandatory", "grade": "F" if failed else "P", "error": 1e-12, "detail": "turned"},
        "single-precision": {
            "category": "informational",
            "grade": "F" if failed else "P",
            "error": 2e-6,
            "detail": "against float64",
        },
    }


def phonons(model: str) -> dict[str, Any]:
    if model == "pretrain":
        return {"failed": "the relaxation has not converged"}
    q = np.linspace(0, 1, 21)
    lowest = -2.0 if model == "vanilla" else 0.0
    modes = np.stack([lowest * np.sin(np.pi * q), 5 * np.sin(q), 30 + q], axis=1)
    bands = [
        {"labels": labels, "distances": (start + q / 7).tolist(), "frequencies": modes.tolist()}
        for start, labels in ((0.0, ("Γ", "M")), (1 / 7, ("M", "K")))
    ]
    facts = {"acoustic_at_gamma": 0.004, "lowest": lowest, "imaginary": lowest < 0, "space_group": "P3_221"}
    return {"bands": bands} | facts


def distances(pair: str) -> dict[str, Any]:
    _, r0, _ = PAIRS[pair]
    r = np.linspace(0.05, 6.0, 100)
    before = np.where(r > 0.8 * r0, 20 * r**2 * np.exp(-(((r - 1.2 * r0) / 1.8) ** 2)), 0)
    after = np.where(r > 0.35 * r0, 20 * r**2 * np.exp(-(((r - 1.2 * r0) / 2.2) ** 2)) + 0.4, 0)
    return {"r": r.tolist(), "before": before.tolist(), "after": after.tolist()}
