"""Fitting an EAM: several seeded starts are screened on a few frames, the best go on with more, the best with all.

What is minimised, and how E0s are solved inside it, is in ``problem``; what may move and how far in ``parameters``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import get_args

import numpy as np
import torch
from ase import Atoms
from scipy.optimize import OptimizeResult, minimize

from pretrain_mlip.console import progress_bar
from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.potentials.eam.embedded_atom import Form
from pretrain_mlip.potentials.eam.findings import findings
from pretrain_mlip.potentials.eam.form import EAM, MORSE_START
from pretrain_mlip.potentials.eam.inputs import elements_of, interacting, refuse_strange, refuse_unlabelled, weighted
from pretrain_mlip.potentials.eam.parameters import (
    Freedom,
    freedom,
    get_gradient,
    get_values,
    named_values,
    set_values,
    start_from,
)
from pretrain_mlip.potentials.eam.problem import Problem
from pretrain_mlip.potentials.eam.settings import EAMSettings
from pretrain_mlip.potentials.eam.storage import load_eam
from pretrain_mlip.structures.reference_energies import known_reference_energies

log = logging.getLogger(__name__)
SPREAD = 0.4  # standard deviation of random starts about typical values, mostly logarithms
REFUSED = 1e8  # loss of parameters whose energies are not finite: the line search turns back
STIFFNESS = 4.0  # a r0 of a Morse function to start from; 6 is as stiff as Lennard-Jones
FINALISTS = 2  # starts that go on after the screening, which does not always tell the better basin
MORE = 8  # times the screening frames: where there are more than these, so many are fitted before all
CONVERGED = (2e-9, 1e-7)  # relative fall of the loss in an iteration; the second after a fit to fewer frames
TOLERANCE = 0.10  # by which the form alloy may err more than fs and is still chosen


def fit_eam(
    frames: Sequence[Atoms],
    cutoff: float | None = None,
    *,
    settings: EAMSettings | None = None,
    held_out: Sequence[Atoms] = (),
    validation: Sequence[Atoms] = (),
    reference_energies: Mapping[str, float] | None = None,
) -> EAM:
    """Fit an EAM.

    Args:
        frames: structures with energies and forces, and stress where they have it.
        cutoff: Å, in place of the one in the settings (8.0).
        settings: form, weights, starts.
        held_out: structures on which the errors are reported as well.
        validation: structures by which the form ``auto`` is chosen; every fifth of the frames where there are none.
        reference_energies: element -> E0 in eV, kept as they are. Isolated atoms among the frames give theirs likewise;
            the fit finds the others.

    Returns:
        The EAM in evaluation mode; ``report`` holds the errors, the loss of every start and of every iteration, the
        parameters by name, and the audit of its curves.

    Raises:
        InputError: no frames, labels are missing, a reference energy or a setting cannot be used, or nothing interacts
            within the cutoff.
        ComputationError: no start gave a finite loss.
    """
    settings = settings or EAMSettings()
    if settings.setfl is not None:
        raise InputError(
            "eam.setfl: fit_eam fits; EAM.from_setfl reads tables, adopt_setfl brings them to the data's E0s"
        )
    if cutoff is not None:
        settings = settings.model_copy(update={"cutoff": cutoff})
    refuse_unlabelled(frames)
    known = known_reference_energies(frames, reference_energies)
    elements = elements_of(frames)
    frames, validation, held_out = weighted(frames), interacting(validation), interacting(held_out)
    refuse_strange(validation, elements, "validation")
    refuse_strange(held_out, elements, "held-out")
    if settings.form == "auto":
        eam = _fit_better_form(elements, frames, validation, known, settings)
    else:
        eam = _fit(elements, frames, known, settings)
    if held_out:
        eam.report["held_out"] = Problem(eam, held_out).errors(eam)
    return eam


def _fit_better_form(
    elements: Sequence[str],
    frames: Sequence[Atoms],
    validation: Sequence[Atoms],
    known: Mapping[str, float],
    settings: EAMSettings,
) -> EAM:
    """The fit of the form with the lower loss on structures that it was not fitted to; ``forms`` reports the losses."""
    if settings.warm_start is not None:
        raise InputError("eam.warm_start: an earlier fit has one form; name it with eam.form instead of auto")
    of_form = {form: settings.model_copy(update={"form": form}) for form in get_args(Form)}
    for form, its_settings in of_form.items():  # names of parameters depend on the form; refused before the first fit
        freedom(EAM(elements, settings.cutoff, form), its_settings)
    fitted = frames
    if not validation and len(frames) > 1:
        held = set(range(4, len(frames), 5)) or {len(frames) - 1}
        validation = [frames[number] for number in sorted(held)]
        fitted = [atoms for number, atoms in enumerate(frames) if number not in held]
    fits = {form: _fit(elements, fitted, known, its_settings) for form, its_settings in of_form.items()}
    losses = {}
    for form, eam in fits.items():
        problem = Problem(eam, validation or fitted, eam.reference_energies())
        problem.scales = Problem(eam, fitted, known).scales
        with torch.no_grad():
            losses[form] = problem.loss(eam, settings).item()
    # Losses are mean squares of errors in the main
    best = "alloy" if losses["alloy"] ** 0.5 <= (1.0 + TOLERANCE) * losses["fs"] ** 0.5 else "fs"
    log.info("EAM fit: the form '%s' is chosen; held-out loss of alloy %.4f, fs %.4f", best, *losses.values())
    eam = fits[best] if fitted is frames else _fit(elements, frames, known, of_form[best])
    eam.report["forms"] = losses
    return eam


def _fit(elements: Sequence[str], frames: Sequence[Atoms], known: Mapping[str, float], settings: EAMSettings) -> EAM:
    eam = EAM(elements, settings.cutoff, "fs" if settings.form == "fs" else "alloy")
    problem = Problem(eam, frames, known)
    if not problem.has_terms(settings):
        raise InputError("the EAM fit has nothing to fit: every label that the structures have is given no weight")
    seen = problem.distances(eam)
    if not seen:
        raise InputError(f"no two atoms of the training structures are within the EAM cutoff of {settings.cutoff} Å")
    if missing := [eam.pair_name(*pair) for pair in eam.pairs if pair not in seen]:
        log.warning(
            "EAM fit: no training structure has %s within %g Å; these pairs keep the shape that every fit starts from",
            ", ".join(missing),
            eam.cutoff,
        )
    _start_from_data(eam, problem)
    with _single_threaded():  # chunks are small: threads would wait for each other
        starts, history = _search(eam, frames, problem, known, settings)
    eam.e0.copy_(problem.best_e0(eam))
    eam.requires_grad_(False)  # noqa: FBT003
    eam.report = {
        "settings": settings.model_dump(mode="json"),
        "start_losses": [losses[-1] for losses in starts],
        "starts": starts,
        "loss": history,
        "parameters": named_values(eam),
        **findings(eam, problem, seen, known),
    }
    return eam


def _start_from_data(eam: EAM, problem: Problem) -> None:
    """Typical values: Morse minima at the mean distance of nearest neighbours, and the mean density as its unit."""
    with torch.no_grad():
        for (a, b), distance in problem.nearest(eam).items():
            number, inner = eam.pair_number(a, b), MORSE_START * eam.covalent_sum(a, b)
            minimum = max(distance, 1.1 * inner)
            eam.log_minimum[number] = np.log(minimum - inner)
            eam.log_width[number] = np.log(STIFFNESS / minimum)
        felt = problem.densities(eam)
        felt = felt[felt > 0]  # none where atoms only touch the cutoff
        for parameter in (eam.log_amplitude, eam.log_shell):  # densities of order one, as the range of tables has it
            parameter.sub_(torch.log(felt.mean()) if len(felt) else 0.0)
    density = problem.densities(eam)
    for kind in range(len(eam.elements)):
        felt = density[(problem.types == kind) & (density > 0)]
        if len(felt):
            eam.density_scale[kind] = felt.mean()


@contextmanager
def _single_threaded() -> Iterator[None]:
    """Let torch use one thread in here."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _search(
    eam: EAM, frames: Sequence[Atoms], problem: Problem, known: Mapping[str, float], settings: EAMSettings
) -> tuple[list[list[float]], list[float]]:
    """Screen the starts and fit the best with ever more frames. Losses by iteration: of every start, and of the end."""
    rng = np.random.default_rng(settings.seed)
    order = rng.permutation(len(frames))
    stages = [problem]
    for size in (MORE * settings.screening_frames, settings.screening_frames):
        if size < len(stages[0].energy):
            some = Problem(eam, [frames[i] for i in sorted(order[:size])], known)
            some.scales = problem.scales
            if some.has_terms(settings):
                stages.insert(0, some)
    moves = freedom(eam, settings)
    first = moves.origin
    if settings.warm_start is not None:
        start_from(eam, load_eam(settings.warm_start), str(settings.warm_start))
        first = get_values(eam)
        set_values(eam, moves.origin)
        moves = freedom(eam, settings, first)
    set_values(eam, moves.origin)
    depends = _depends(eam, problem, moves, settings)
    with progress_bar() as bar:
        descents = len(stages[1:] or stages) - 1 + min(FINALISTS, settings.starts)
        total = settings.starts * settings.screening_iterations + descents * settings.max_iterations
        task = bar.add_task("fitting the EAM", total=total, note="")
        done = 0

        def descend(some: Problem, start: np.ndarray, iterations: int, converged: float) -> OptimizeResult:
            nonlocal done

            def show(iteration: int, loss: float) -> None:
                bar.update(task, completed=done + iteration, note=_note(loss, some))

            found = _descend(eam, some, settings, moves, start, iterations, converged, show)
            done += iterations
            return found

        found = []
        for number in range(settings.starts):
            shift = SPREAD * rng.standard_normal(len(moves.free(first))) * depends
            start = moves.free(first) + (shift if number else 0.0)
            found.append(descend(stages[0], start, settings.screening_iterations, CONVERGED[0]))
        starts = [result.history for result in found]
        found = sorted((result for result in found if result.fun < REFUSED), key=lambda result: result.fun)
        if not found:
            raise ComputationError("the EAM fit found no start with a finite loss; see 'datasets info' of the data")
        for number, some in enumerate(stages[1:] or stages):
            further = found[: 1 if number else FINALISTS]
            found = [descend(some, one.x, settings.max_iterations, CONVERGED[min(number, 1)]) for one in further]
            found.sort(key=lambda result: result.fun)
        best = found[0]
    set_values(eam, moves.full(best.x))
    log.info(
        "EAM fit: loss of the starts %s, final %.4f (%d frames, %d iterations)",
        ", ".join(f"{losses[-1]:.3f}" for losses in starts),
        best.fun,
        len(problem.energy),
        len(best.history),
    )
    return starts, best.history


def _note(loss: float, problem: Problem) -> str:
    """The loss and the errors of its last evaluation."""
    energy, forces = problem.latest.get("energy"), problem.latest.get("forces")
    parts = [f"{len(problem.energy)} frames: loss {loss:.4f}"]
    if energy is not None:
        parts.append(f"{1e3 * energy:.3g} meV/atom")
    if forces is not None:
        parts.append(f"{forces:.3g} eV/Å")
    return ", ".join(parts)


def _depends(eam: EAM, problem: Problem, moves: Freedom, settings: EAMSettings) -> np.ndarray:
    """Which free parameters a label depends on: what belongs to a pair that no structure shows stays where it is."""
    loss, slope = _loss_and_slope(eam, problem, settings)
    return (moves.slope(slope) != 0.0) | (not np.isfinite(loss))


def _descend(
    eam: EAM,
    problem: Problem,
    settings: EAMSettings,
    moves: Freedom,
    start: np.ndarray,
    iterations: int,
    converged: float,
    report: Callable[[int, float], None],
) -> OptimizeResult:
    """L-BFGS-B from one start; the result has the losses of all iterations as ``history``."""
    history: list[float] = []
    # The labels' terms are means over structures; a prior weighs less the more of them there are
    prior = settings.prior / len(problem.energy)

    def objective(values: np.ndarray) -> tuple[float, np.ndarray]:
        full = moves.full(values)
        set_values(eam, full)
        loss, slope = _loss_and_slope(eam, problem, settings)
        if not np.isfinite(loss):
            return REFUSED, np.zeros_like(values)
        offset = full - moves.origin
        return loss + prior * float(offset @ offset), moves.slope(slope + 2.0 * prior * offset)

    def callback(intermediate_result: OptimizeResult) -> None:
        history.append(float(intermediate_result.fun))
        report(len(history), history[-1])

    bounds = moves.bounds()
    start = np.clip(start, [low for low, _ in bounds], [high for _, high in bounds])
    if len(start):
        found = minimize(
            objective,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            callback=callback,
            options={"maxiter": iterations, "maxcor": 20, "ftol": converged},
        )
    else:  # every parameter is fixed
        found = OptimizeResult(x=start, fun=objective(start)[0])
    found.history = history or [float(found.fun)]
    return found


def _loss_and_slope(eam: EAM, problem: Problem, settings: EAMSettings) -> tuple[float, np.ndarray]:
    """The loss without the prior, and its derivative by the parameters; zeros where it is not finite."""
    eam.zero_grad()
    loss = problem.loss(eam, settings)
    if torch.isfinite(loss):
        loss.backward()
    return loss.item(), get_gradient(eam)
