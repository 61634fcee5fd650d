"""Fitting an EAM to DFT energies, forces and stress.

Residuals are divided by the spread of their labels and enter a pseudo-Huber loss, so that a few very hot frames do not
decide the fit. E0s are linear and solved inside every evaluation. Forces and stress are analytic, hence one backward
pass gives the gradient. Several seeded starts are screened on a few frames; the best goes on with all of them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers
from scipy.optimize import minimize
from torch import Tensor

from pretrain_mlip import keys
from pretrain_mlip.console import progress_bar
from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.graphs.graph import batch_index, edge_vectors, make_batch, make_graph
from pretrain_mlip.potentials.base import forces_from_gradient, summed_products
from pretrain_mlip.potentials.eam.form import EAM, group_edges
from pretrain_mlip.potentials.eam.settings import EAMSettings
from pretrain_mlip.structures.io import labels_of

log = logging.getLogger(__name__)
RIDGE = 1e-4  # pulls what the data do not determine to the starting values
MARGIN = 4.0  # how far a parameter may move from its starting value, mostly logarithms
STEEP_MARGIN = 2.0  # likewise, where more would overflow exponentials
STEEP = ("log_width", "log_minimum", "log_decay")
REFUSED = 1e8  # loss of parameters whose energies are not finite: the line search turns back


@dataclass
class _Problem:
    """Frames as one batch, with everything that does not change during a fit."""

    types: Tensor
    edge_index: Tensor
    vectors: Tensor
    groups: dict[tuple[int, int], Tensor]
    batch: Tensor
    volume: Tensor
    atoms: Tensor  # (B,) number of atoms
    composition: Tensor  # (B, S) share of each element
    solver: Tensor  # (S, B) least squares: energies per atom -> E0s
    energy: Tensor  # (B,) eV/atom
    forces: Tensor
    has_forces: Tensor
    stress: Tensor
    has_stress: Tensor
    weight: Tensor  # (B,) config_weight
    scales: tuple[float, float, float]


def fit_eam(
    frames: Sequence[Atoms],
    cutoff: float | None = None,
    *,
    settings: EAMSettings | None = None,
    held_out: Sequence[Atoms] = (),
) -> EAM:
    """Fit an EAM.

    Args:
        frames: structures with energies and forces, and stress where they have it.
        cutoff: Å, in place of the one in the settings (8.0).
        settings: form, weights, starts.
        held_out: structures on which the errors are reported as well.

    Returns:
        The EAM in evaluation mode; ``report`` holds the errors, the loss of every start and of every iteration.

    Raises:
        InputError: no frames, labels are missing, or nothing interacts within the cutoff.
        ComputationError: no start gave a finite loss.
    """
    settings = settings or EAMSettings()
    if cutoff is not None:
        settings = settings.model_copy(update={"cutoff": cutoff})
    if not frames:
        raise InputError("the EAM fit got no structures")
    for number, atoms in enumerate(frames):
        found = labels_of(atoms)
        if found.energy is None or (found.forces is None and len(atoms) > 1):
            raise InputError(
                f"the EAM fit needs energy and forces; structure {number} ({atoms.get_chemical_formula()}) lacks them"
            )
    elements = sorted(
        {symbol for atoms in frames for symbol in atoms.symbols}, key=lambda symbol: atomic_numbers[symbol]
    )
    eam = EAM(elements, settings.cutoff, settings.form)
    problem = _prepare(eam, frames)
    if problem.vectors.shape[0] == 0:
        raise InputError(f"no two atoms of the training structures are within the EAM cutoff of {settings.cutoff} Å")
    _scale_densities(eam, problem)
    history, starts = _search(eam, frames, problem, settings)
    _solve_e0(eam, problem)
    eam.requires_grad_(False)  # noqa: FBT003
    eam.report = {
        "settings": settings.model_dump(mode="json"),
        "frames": len(frames),
        "start_losses": starts,
        "loss": history,
        "baseline_energy_rmse": _baseline(problem),
        "train": errors(eam, frames),
    }
    if held_out:
        eam.report["held_out"] = errors(eam, held_out)
    return eam


def errors(eam: EAM, frames: Sequence[Atoms]) -> dict[str, float | None]:
    """Root-mean-square errors: energy_rmse (eV/atom), forces_rmse and forces_rms (eV/Å), stress_rmse (eV/Å³)."""
    problem = _prepare(eam, frames)
    with torch.no_grad():
        energy, forces, stress = _predict(eam, problem)
        energy = energy + problem.composition @ eam.e0
        reference = problem.forces[problem.has_forces]
        return {
            "energy_rmse": _rms(energy - problem.energy),
            "forces_rmse": _rms(forces[problem.has_forces] - reference),
            "forces_rms": _rms(reference),
            "stress_rmse": _rms((stress - problem.stress)[problem.has_stress]),
        }


def _prepare(eam: EAM, frames: Sequence[Atoms]) -> _Problem:
    graph = make_batch([make_graph(atoms, eam.cutoff, labels=True) for atoms in frames])
    types = eam.types(graph[keys.ATOMIC_NUMBERS])
    batch = batch_index(graph)
    atoms = torch.tensor([len(frame) for frame in frames], dtype=torch.float64)
    composition = torch.zeros((len(frames), len(eam.elements)), dtype=torch.float64)
    composition.index_put_((batch, types), torch.ones(len(types), dtype=torch.float64), accumulate=True)
    composition /= atoms[:, None]
    energy, stress = graph[keys.ENERGY] / atoms, graph[keys.STRESS]
    has_forces = torch.isfinite(graph[keys.FORCES]).all(1)
    has_stress = torch.isfinite(stress).all(1) & torch.isfinite(graph[keys.VOLUME])
    # A relative cut-off keeps directions that no frame determines (SiO2 only, say) at the smallest E0s
    solver = torch.linalg.pinv(composition, rtol=1e-8)
    residual = energy - composition @ (solver @ energy)
    scales = (
        max(_rms(residual) or 0.0, 5e-3),
        max(_rms(graph[keys.FORCES][has_forces]) or 0.0, 5e-2),
        max(_rms(stress[has_stress]) or 0.0, 1e-3),
    )
    return _Problem(
        types=types,
        edge_index=graph[keys.EDGE_INDEX],
        vectors=edge_vectors(graph),
        groups=group_edges(types, graph[keys.EDGE_INDEX], len(eam.elements)),
        batch=batch,
        volume=graph[keys.VOLUME],
        atoms=atoms,
        composition=composition,
        solver=solver,
        energy=energy,
        forces=graph[keys.FORCES],
        has_forces=has_forces,
        stress=stress,
        has_stress=has_stress,
        weight=graph[keys.CONFIG_WEIGHT],
        scales=scales,
    )


def _predict(eam: EAM, problem: _Problem) -> tuple[Tensor, Tensor, Tensor]:
    """Energies without E0s in eV/atom (B,), forces (N, 3) and stress (B, 6)."""
    energies, factor, distance = eam.interaction(problem.types, problem.edge_index, problem.vectors, problem.groups)
    gradient = problem.vectors * (factor / distance)[:, None]
    forces = forces_from_gradient(gradient, problem.edge_index, len(problem.types))
    frames = len(problem.energy)
    virial = summed_products(problem.vectors, gradient, problem.edge_index[1], problem.batch, frames)
    energy = energies.new_zeros(frames).index_add(0, problem.batch, energies) / problem.atoms
    volume = torch.where(torch.isfinite(problem.volume), problem.volume, torch.inf)  # keeps gradients finite
    return energy, forces, virial / volume[:, None]


def _loss(eam: EAM, problem: _Problem, settings: EAMSettings) -> Tensor:
    energy, forces, stress = _predict(eam, problem)
    residual = problem.energy - energy
    residual = residual - problem.composition @ (problem.solver @ residual)  # E0s solved
    has_forces, has_stress, weight = problem.has_forces, problem.has_stress, problem.weight
    scales = problem.scales
    terms = (
        (settings.energy_weight, residual[:, None] / scales[0], weight),
        (settings.forces_weight, (forces - problem.forces)[has_forces] / scales[1], weight[problem.batch][has_forces]),
        (settings.stress_weight, (stress - problem.stress)[has_stress] / scales[2], weight[has_stress]),
    )
    loss = residual.new_zeros(())
    for share, values, of_frame in terms:
        if share > 0 and values.numel():
            loss = loss + share * (_pseudo_huber(values, settings.huber).mean(1) * of_frame).mean()
    return loss


def _pseudo_huber(values: Tensor, delta: float) -> Tensor:
    return 2.0 * delta**2 * (torch.sqrt(1.0 + (values / delta).square()) - 1.0)


def _scale_densities(eam: EAM, problem: _Problem) -> None:
    """Start with densities of order one, where the embedding function has its structure."""
    with torch.no_grad():
        density = torch.zeros(len(problem.types), dtype=torch.float64)
        for (source, centre), edges in problem.groups.items():
            distance = torch.linalg.vector_norm(problem.vectors[edges], dim=1)
            density.index_add_(0, problem.edge_index[1][edges], eam.density(source, centre, distance)[0])
        eam.log_amplitude.sub_(torch.log(density[density > 0].mean()))


def _search(
    eam: EAM, frames: Sequence[Atoms], problem: _Problem, settings: EAMSettings
) -> tuple[list[float], list[float]]:
    """Screen the starts, then fit the best with all frames. Loss of every iteration, and of every start."""
    rng = np.random.default_rng(settings.seed)
    origin = _get(eam)
    some = rng.permutation(len(frames))[: settings.screening_frames]
    small = problem if len(frames) <= settings.screening_frames else _prepare(eam, [frames[i] for i in sorted(some)])
    small.scales = problem.scales
    best: tuple[float, np.ndarray] | None = None
    losses = []
    with progress_bar() as bar:
        total = settings.starts * settings.screening_iterations + settings.max_iterations
        task = bar.add_task("fitting the EAM", total=total, note="")

        def show(number: int, iteration: int, loss: float) -> None:
            bar.update(task, completed=number * settings.screening_iterations + iteration, note=f"loss {loss:.4f}")

        for number in range(settings.starts):
            start = origin + (0.4 * rng.standard_normal(len(origin)) if number else 0.0)
            found = _descend(
                eam, small, settings, start, origin, settings.screening_iterations, lambda i, v, n=number: show(n, i, v)
            )
            losses.append(found[0])
            if found[0] < REFUSED and (best is None or found[0] < best[0]):
                best = (found[0], found[1])
        if best is None:
            raise ComputationError(
                "the EAM fit found no start with a finite loss; look at the data with 'datasets info'"
            )
        _, values, history = _descend(
            eam, problem, settings, best[1], origin, settings.max_iterations, lambda i, v: show(settings.starts, i, v)
        )
    _set(eam, values)
    log.info("EAM fit: loss of the starts %s, final %.4f", ", ".join(f"{loss:.3f}" for loss in losses), history[-1])
    return history, losses


def _descend(
    eam: EAM,
    problem: _Problem,
    settings: EAMSettings,
    start: np.ndarray,
    origin: np.ndarray,
    iterations: int,
    report: Any,
) -> tuple[float, np.ndarray, list[float]]:
    """L-BFGS-B from one start: loss, parameters, loss after every iteration."""
    history: list[float] = []

    def objective(values: np.ndarray) -> tuple[float, np.ndarray]:
        _set(eam, values)
        eam.zero_grad()
        loss = _loss(eam, problem, settings)
        if not torch.isfinite(loss):
            return REFUSED, np.zeros_like(values)
        loss.backward()
        offset = values - origin
        slope = np.concatenate([_gradient(parameter) for parameter in eam.parameters()])
        return loss.item() + RIDGE * float(offset @ offset), slope + 2.0 * RIDGE * offset

    def callback(intermediate_result: Any) -> None:
        history.append(float(intermediate_result.fun))
        report(len(history), history[-1])

    margin = _margins(eam)
    low, high = origin - margin, origin + margin
    start = np.clip(start, low, high)
    found = minimize(
        objective,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=list(zip(low, high, strict=True)),
        callback=callback,
        options={"maxiter": iterations, "maxcor": 20},
    )
    return float(found.fun), np.array(found.x), history or [float(found.fun)]


def _margins(eam: EAM) -> np.ndarray:
    margins = [
        np.full(value.numel(), STEEP_MARGIN if name in STEEP else MARGIN) for name, value in eam.named_parameters()
    ]
    return np.concatenate(margins)


def _gradient(parameter: torch.nn.Parameter) -> np.ndarray:
    return np.zeros(parameter.numel()) if parameter.grad is None else parameter.grad.reshape(-1).numpy().copy()


def _get(eam: EAM) -> np.ndarray:
    return np.concatenate([parameter.detach().reshape(-1).numpy() for parameter in eam.parameters()])


def _set(eam: EAM, values: np.ndarray) -> None:
    place = 0
    with torch.no_grad():
        for parameter in eam.parameters():
            size = parameter.numel()
            parameter.copy_(torch.from_numpy(values[place : place + size].copy()).reshape(parameter.shape))
            place += size


def _solve_e0(eam: EAM, problem: _Problem) -> None:
    with torch.no_grad():
        eam.e0.copy_(problem.solver @ (problem.energy - _predict(eam, problem)[0]))


def _baseline(problem: _Problem) -> float | None:
    """Error of a constant per element, eV/atom: what an EAM must beat."""
    return _rms(problem.energy - problem.composition @ (problem.solver @ problem.energy))


def _rms(values: Tensor) -> float | None:
    return float(values.square().mean().sqrt()) if values.numel() else None
