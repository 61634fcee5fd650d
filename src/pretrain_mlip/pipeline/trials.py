"""What the trained potentials of a run are worth: errors, dimers, survival in hot MD, radial distributions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from ase import Atoms

from pretrain_mlip.calculators.ase import PretrainedMLIP
from pretrain_mlip.calculators.batched import predict
from pretrain_mlip.config import RDFSettings, RunConfig
from pretrain_mlip.dynamics.failure import FailureSettings
from pretrain_mlip.dynamics.kaplan_meier import survival_section
from pretrain_mlip.dynamics.rdf import radial_distribution, rdf_deviations
from pretrain_mlip.dynamics.replica_store import ReplicaStore
from pretrain_mlip.dynamics.survival import StabilitySettings, run_replicas
from pretrain_mlip.errors import InputError
from pretrain_mlip.files import sha256
from pretrain_mlip.keys import CONFIG_TYPE, ISOLATED_ATOM
from pretrain_mlip.parallel import Workers
from pretrain_mlip.pipeline.folder import RunFolder
from pretrain_mlip.potentials.checkpoint import load_potential
from pretrain_mlip.structures.io import labels_of, read_structures
from pretrain_mlip.structures.perturbation import pair_distance_histograms
from pretrain_mlip.structures.reference_energies import fit_reference_energies
from pretrain_mlip.structures.splits import Splits
from pretrain_mlip.validation.dimers import dimer_metrics, scan_dimers
from pretrain_mlip.validation.errors import error_table, parity

EAM_NAME = "eam"


def test_errors(
    folder: RunFolder, names: Sequence[str], frames: Sequence[Atoms], device: str
) -> dict[str, dict[str, Any]]:
    """Sections ``errors`` and ``parity``: every potential on the same frames."""
    sections: dict[str, dict[str, Any]] = {"errors": {}, "parity": {}}
    for name in names:
        predicted = predict(
            load_potential(folder.potential(name)), frames, device=device, description=f"testing {name}"
        )
        sections["errors"][name] = error_table(frames, predicted)
        sections["parity"][name] = parity(frames, predicted)
    return sections


def dimer_scans(folder: RunFolder, names: Sequence[str], elements: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Sections ``dimers`` and ``dimer_metrics``; in float64, so that roughness is the potential's own."""
    curves = {}
    for name in names:
        potential = load_potential(folder.potential(name))
        label = partial(predict, potential, dtype="float64", description=f"dimers of {name}")
        curves[name] = scan_dimers(label, elements, r_max=max(8.0, potential.cutoff))
    return {"dimers": curves, "dimer_metrics": {name: dimer_metrics(found) for name, found in curves.items()}}


def watched_for(failure: FailureSettings, frames: Sequence[Atoms], given: Mapping[str, float]) -> FailureSettings:
    """Settings of failure with the energies of training structures, unless others are given.

    Args:
        failure: the settings.
        frames: labelled structures that potentials were trained on.
        given: reference energies of elements in eV.
    """
    if failure.energy_range is not None or failure.energy_margin is None:
        return failure
    references = fit_reference_energies(frames, given)
    found = [
        (energy - sum(references[symbol] for symbol in atoms.symbols)) / len(atoms)
        for atoms in frames
        if (energy := labels_of(atoms).energy) is not None and atoms.info.get(CONFIG_TYPE) != ISOLATED_ATOM
    ]
    if not found:
        return failure
    return failure.model_copy(update={"energy_range": (min(found), max(found)), "reference_energies": references})


def survival(
    folder: RunFolder,
    section: str,
    names: Sequence[str],
    splits: Splits,
    settings: StabilitySettings,
    config: RunConfig,
    workers: Workers,
) -> dict[str, Any]:
    """Section ``survival`` or ``squeeze``: the same replicas for every potential; those that have ended are kept."""
    structures = splits.test or splits.val
    failure = watched_for(settings.failure, [*splits.train, *splits.val], config.data.reference_energies)
    calculators = {name: partial(PretrainedMLIP.load, folder.potential(name), device=config.device) for name in names}
    settings = settings.model_copy(update={"seed": config.seed + settings.seed, "failure": failure})
    # Settings may be corrected until the section is complete
    store = ReplicaStore(folder.replicas(section), {n: sha256(folder.potential(n)) for n in names}, replace=True)
    found = run_replicas(calculators, structures, settings, workers=workers, store=store)
    return {name: survival_section(replicas, settings.md.duration_ps) for name, replicas in found.items()}


def rdf_structures(splits: Splits, settings: RDFSettings) -> list[Atoms]:
    """The DFT structures that MD is compared with, test structures first; none where nothing is periodic.

    Raises:
        InputError: no periodic structure is of the kind asked for, or equilibration leaves nothing of the run.
    """
    if settings.equilibration_ps >= settings.md.duration_ps:
        raise InputError(
            f"rdf.equilibration_ps ({settings.equilibration_ps:g}) leaves nothing of rdf.md.duration_ps "
            f"({settings.md.duration_ps:g})"
        )
    parts = (splits.test, splits.val, splits.train)
    frames = [atoms for part in parts for atoms in part if atoms.pbc.all() and len(atoms) > 1]
    if not frames:
        return []
    kinds = Counter(str(atoms.info.get(CONFIG_TYPE, "")) for atoms in frames)
    kind = settings.config_type if settings.config_type is not None else kinds.most_common(1)[0][0]
    if kind not in kinds:
        raise InputError(
            f"rdf.config_type: no periodic structure has config_type '{kind}'; there are {', '.join(sorted(kinds))}"
        )
    return [atoms for atoms in frames if str(atoms.info.get(CONFIG_TYPE, "")) == kind]


def radial_distributions(
    folder: RunFolder, names: Sequence[str], splits: Splits, settings: RDFSettings, config: RunConfig, workers: Workers
) -> dict[str, Any]:
    """Section ``rdf``: one MD run of every potential beside the DFT structures of one kind."""
    chosen = rdf_structures(splits, settings)
    if not chosen:
        return {"description": "no structure is periodic in three directions"}
    kind = str(chosen[0].info.get(CONFIG_TYPE, ""))
    reference = radial_distribution(chosen, settings.r_max, settings.bins)
    campaign = StabilitySettings(replicas=1, md=settings.md, seed=config.seed)
    calculators = {name: partial(PretrainedMLIP.load, folder.potential(name), device=config.device) for name in names}
    runs = run_replicas(calculators, chosen[:1], campaign, workers=workers)
    models, mae, mae_errors = {}, {}, {}
    for name, (replica,) in runs.items():
        kept = [frame for frame in replica.frames if frame.info["time_fs"] >= 1000.0 * settings.equilibration_ps]
        if replica.outcome == "completed" and kept:
            function = radial_distribution(kept, settings.r_max, settings.bins)
            found = rdf_deviations(function, reference)
            models[name] = function.to_dict()
            mae[name] = {pair: one.mae for pair, one in found.items()}
            mae_errors[name] = {pair: one.error for pair, one in found.items()}
    failed = sorted(set(names) - set(models))
    description = (
        f"{len(chosen)} DFT structures of kind '{kind}', and {settings.md.duration_ps:g} ps of MD at "
        f"{settings.md.temperature:g} K from one of them"
        + (f"; the run failed for {', '.join(failed)}" if failed else "")
    )
    functions = {"reference": reference.to_dict(), "models": models}
    return {**functions, "mae": mae, "mae_errors": mae_errors, "description": description}


def pair_distances(folder: RunFolder, splits: Splits) -> tuple[dict[str, Any], dict[str, float]]:
    """Section ``pair_distances``, and the shortest distance of every pair in the structures trained on."""
    r_max, bins = 8.0, 160
    made = folder.pretraining("train")
    perturbed = read_structures(made) if made.exists() else []
    width = r_max / bins
    centres = ((np.arange(bins) + 0.5) * width).tolist()
    dft = [*splits.train, *splits.val]
    before, after = (pair_distance_histograms(frames, r_max, bins) for frames in (dft, perturbed))
    section, closest = {}, {}
    for pair in sorted({*before, *after}) if perturbed else ():
        counts = [np.asarray(found.get(pair, np.zeros(bins)), dtype=float) for found in (before, after)]
        section[pair] = {
            "r": centres,
            "before": (counts[0] / (len(dft) * width)).tolist(),
            "after": (counts[1] / (len(perturbed) * width)).tolist(),
        }
    for pair, counts in before.items():
        met = np.flatnonzero(counts)
        if met.size:
            closest[pair] = float(centres[met[0]] - 0.5 * width)
    return section, closest
