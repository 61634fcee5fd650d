"""Fitting an EAM: several seeded starts are screened on a few frames, the best goes on with all of them.

What is minimised, and how E0s are solved inside it, is in ``problem``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers
from scipy.optimize import minimize

from pretrain_mlip.console import progress_bar
from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.keys import CONFIG_TYPE, ISOLATED_ATOM
from pretrain_mlip.potentials.eam.form import EAM
from pretrain_mlip.potentials.eam.problem import Problem
from pretrain_mlip.potentials.eam.settings import EAMSettings
from pretrain_mlip.structures.io import labels_of
from pretrain_mlip.structures.reference_energies import known_reference_energies

log = logging.getLogger(__name__)
MARGIN = 4.0  # how far a parameter may move from its starting value, mostly logarithms
STEEP_MARGIN = 2.0  # likewise, where more would overflow exponentials
STEEP = ("log_width", "log_minimum", "log_decay")
REFUSED = 1e8  # loss of parameters whose energies are not finite: the line search turns back


def fit_eam(
    frames: Sequence[Atoms],
    cutoff: float | None = None,
    *,
    settings: EAMSettings | None = None,
    held_out: Sequence[Atoms] = (),
    reference_energies: Mapping[str, float] | None = None,
) -> EAM:
    """Fit an EAM.

    Args:
        frames: structures with energies and forces, and stress where they have it.
        cutoff: Å, in place of the one in the settings (8.0).
        settings: form, weights, starts.
        held_out: structures on which the errors are reported as well.
        reference_energies: element -> E0 in eV, kept as they are. Isolated atoms among the frames give theirs likewise;
            the fit finds the others.

    Returns:
        The EAM in evaluation mode; ``report`` holds the errors, the loss of every start and of every iteration.

    Raises:
        InputError: no frames, labels are missing, a reference energy cannot be used, or nothing interacts within the
            cutoff.
        ComputationError: no start gave a finite loss.
    """
    settings = settings or EAMSettings()
    if cutoff is not None:
        settings = settings.model_copy(update={"cutoff": cutoff})
    _refuse_unlabelled(frames)
    elements = sorted(
        {symbol for atoms in frames for symbol in atoms.symbols}, key=lambda symbol: atomic_numbers[symbol]
    )
    eam = EAM(elements, settings.cutoff, settings.form)
    known = known_reference_energies(frames, reference_energies)
    # An isolated atom has its E0 as energy whatever the parameters are
    frames = [atoms for atoms in frames if atoms.info.get(CONFIG_TYPE) != ISOLATED_ATOM]
    if not frames:
        raise InputError("the EAM fit got isolated atoms only; add structures in which atoms interact")
    problem = Problem(eam, frames, known)
    if not problem.weight.any():
        raise InputError("the EAM fit got structures whose config_weight is 0 only")
    if not problem.pairs():
        raise InputError(f"no two atoms of the training structures are within the EAM cutoff of {settings.cutoff} Å")
    unseen = _unseen_pairs(eam, problem)
    _scale_densities(eam, problem)
    history, starts = _search(eam, frames, problem, known, settings)
    eam.e0.copy_(problem.best_e0(eam))
    eam.requires_grad_(False)  # noqa: FBT003
    eam.report = {
        "settings": settings.model_dump(mode="json"),
        "frames": len(frames),
        "start_losses": starts,
        "loss": history,
        "baseline_energy_rmse": problem.constant_error(),
        "known_e0": {symbol: known[symbol] for symbol in elements if symbol in known},
        "unseen_pairs": unseen,
        "train": problem.errors(eam),
    }
    if held_out:
        eam.report["held_out"] = Problem(eam, held_out).errors(eam)
    return eam


def _refuse_unlabelled(frames: Sequence[Atoms]) -> None:
    if not frames:
        raise InputError("the EAM fit got no structures")
    for number, atoms in enumerate(frames):
        found = labels_of(atoms)
        if found.energy is None or (found.forces is None and len(atoms) > 1):
            raise InputError(
                f"the EAM fit needs energy and forces; structure {number} ({atoms.get_chemical_formula()}) lacks them"
            )


def _unseen_pairs(eam: EAM, problem: Problem) -> list[str]:
    """Pairs "A-B" that no structure shows within the cutoff; the log names them."""
    seen = problem.pairs()
    unseen = [f"{eam.elements[a]}-{eam.elements[b]}" for a, b in eam.pairs if (a, b) not in seen]
    if unseen:
        log.warning(
            "EAM fit: no training structure has %s within %g Å; these pairs keep the shape that every fit starts from",
            ", ".join(unseen),
            eam.cutoff,
        )
    return unseen


def _scale_densities(eam: EAM, problem: Problem) -> None:
    """Start with densities of order one, where the embedding function has its structure."""
    with torch.no_grad():
        density = problem.densities(eam)
        eam.log_amplitude.sub_(torch.log(density[density > 0].mean()))


def _search(
    eam: EAM, frames: Sequence[Atoms], problem: Problem, known: Mapping[str, float], settings: EAMSettings
) -> tuple[list[float], list[float]]:
    """Screen the starts, then fit the best with all frames. Loss of every iteration, and of every start."""
    rng = np.random.default_rng(settings.seed)
    origin = _get(eam)
    some = rng.permutation(len(frames))[: settings.screening_frames]
    small = problem
    if len(frames) > settings.screening_frames:
        small = Problem(eam, [frames[i] for i in sorted(some)], known)
    small.scales = problem.scales
    best: tuple[float, np.ndarray] | None = None
    losses = []
    with progress_bar() as bar:
        total = settings.starts * settings.screening_iterations + settings.max_iterations
        task = bar.add_task("fitting the EAM", total=total, note="")

        def show(number: int, iteration: int, loss: float) -> None:
            bar.update(task, completed=number * settings.screening_iterations + iteration, note=f"loss {loss:.4f}")

        # What no label depends on, a pair that no structure shows, stays exactly where it is
        loss, slope = _loss_and_slope(eam, problem, settings)
        depends = (slope != 0.0) | (not np.isfinite(loss))
        for number in range(settings.starts):
            start = origin + (0.4 * rng.standard_normal(len(origin)) * depends if number else 0.0)
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
    problem: Problem,
    settings: EAMSettings,
    start: np.ndarray,
    origin: np.ndarray,
    iterations: int,
    report: Any,
) -> tuple[float, np.ndarray, list[float]]:
    """L-BFGS-B from one start: loss, parameters, loss after every iteration."""
    history: list[float] = []
    # The labels' terms are means over structures; a prior weighs less the more of them there are
    prior = settings.prior / len(problem.energy)

    def objective(values: np.ndarray) -> tuple[float, np.ndarray]:
        _set(eam, values)
        loss, slope = _loss_and_slope(eam, problem, settings)
        if not np.isfinite(loss):
            return REFUSED, np.zeros_like(values)
        offset = values - origin
        return loss + prior * float(offset @ offset), slope + 2.0 * prior * offset

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


def _loss_and_slope(eam: EAM, problem: Problem, settings: EAMSettings) -> tuple[float, np.ndarray]:
    """The loss without the prior, and its derivative by the parameters; zeros where it is not finite."""
    eam.zero_grad()
    loss = problem.loss(eam, settings)
    if torch.isfinite(loss):
        loss.backward()
    return loss.item(), np.concatenate([_gradient(parameter) for parameter in eam.parameters()])


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
