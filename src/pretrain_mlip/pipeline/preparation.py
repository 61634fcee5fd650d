"""The first steps of a run: DFT structures, the EAM, perturbed structures with its labels."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
from ase import Atoms
from rich.table import Table

from pretrain_mlip.calculators.batched import label_structures, predict
from pretrain_mlip.config import DataSettings, RunConfig
from pretrain_mlip.console import table
from pretrain_mlip.errors import InputError
from pretrain_mlip.files import make_folder, read_json, sha256, write_json
from pretrain_mlip.keys import SPLITS
from pretrain_mlip.parallel import Workers
from pretrain_mlip.pipeline.folder import RunFolder
from pretrain_mlip.pipeline.foundation import read_foundation, reconciled, with_elements
from pretrain_mlip.potentials.base import Potential
from pretrain_mlip.potentials.checkpoint import save_potential
from pretrain_mlip.potentials.eam.adoption import adopt_setfl
from pretrain_mlip.potentials.eam.decomposition import decompose_dimers
from pretrain_mlip.potentials.eam.embedded_atom import EmbeddedAtom, Form
from pretrain_mlip.potentials.eam.fit import fit_eam
from pretrain_mlip.potentials.eam.settings import EAMSettings
from pretrain_mlip.potentials.eam.storage import load_eam
from pretrain_mlip.structures.checks import check_structures, raise_on_errors
from pretrain_mlip.structures.datasets import read_data
from pretrain_mlip.structures.distances import pair_coverage, pairs_of
from pretrain_mlip.structures.io import read_structures, write_structures
from pretrain_mlip.structures.labels import Labels
from pretrain_mlip.structures.perturbation import Teacher, perturb
from pretrain_mlip.structures.reference_energies import fit_reference_energies
from pretrain_mlip.structures.splits import Splits, split_structures

log = logging.getLogger(__name__)
MANY = 5000  # structures whose labels take longer than worker processes to start


def prepare_data(
    folder: RunFolder, settings: DataSettings, refuse: Callable[[Splits], None] = lambda _: None
) -> Splits:
    """Read, check and split the DFT structures, and write them into the run; or read what is already there.

    Args:
        folder: of the run.
        settings: which structures.
        refuse: raises InputError where they are of no use, before anything is written.

    Raises:
        InputError: see ``read_structures``, ``check_structures``, ``split_structures``; or a file is no longer what the
            run has read.
    """
    if folder.reference_energies.exists():
        _refuse_changed(folder)
    else:
        hashes = _hashes(settings.source)  # before they are read: one that is still written to is found out
        frames = read_data(settings.source, keys=settings.keys)
        findings = check_structures(frames)
        raise_on_errors(findings)
        for finding in findings:
            if finding.severity == "warning":
                log.warning("%s", finding.message)
        splits = split_structures(frames, settings.split)
        refuse(splits)
        for name, part in zip(SPLITS, splits, strict=True):
            if part:
                write_structures(folder.data(name), part)
        write_json(folder.sources, hashes)
        write_json(folder.reference_energies, fit_reference_energies(splits.train, settings.reference_energies))
    # Always from the run's own files, so that a resumed run sees the same digits as an uninterrupted one
    return Splits(*(read_structures(folder.data(name)) if folder.data(name).exists() else [] for name in SPLITS))


def _hashes(names: Sequence[str]) -> dict[str, str]:
    return {str(path.absolute()): sha256(path) for path in map(Path, names) if path.is_file()}


def _refuse_changed(folder: RunFolder) -> None:
    """A run goes on without its input; where that is still there, it has to be the same."""
    then = read_json(folder.sources) if folder.sources.exists() else {}
    for name in then:
        try:
            now = _hashes([name])
        except OSError as error:  # somebody else's file, say
            log.warning("%s: cannot be read (%s); the run goes on with what it read then", name, error.strerror)
            continue
        if now not in ({}, {name: then[name]}):
            raise InputError(
                f"{name}: has changed since {folder.path} was begun; restore it, or choose another output. To go on "
                "with what was read then, of which the run has a copy, rename the file"
            )


def data_hash(frames: Sequence[Atoms]) -> str:
    """SHA-256 of elements, cells, positions and labels."""
    digest = hashlib.sha256()
    for atoms in frames:
        results = atoms.calc.results if atoms.calc is not None else {}
        for array in (atoms.numbers, atoms.cell.array, atoms.positions, *(results[name] for name in sorted(results))):
            digest.update(np.ascontiguousarray(array, dtype=np.float64).tobytes())
    return digest.hexdigest()


def fit_and_write_eam(
    splits: Splits,
    settings: EAMSettings,
    folder: Path,
    reference_energies: Mapping[str, float] | None = None,
) -> EmbeddedAtom:
    """Fit an EAM, or take the published one that the settings name, and write its files into a folder.

    These are eam.json, the setfl tables, eam.png (the parts of every dimer's energy) and, of a fit, convergence.png.
    """
    from pretrain_mlip.report.curves import eam_decomposition
    from pretrain_mlip.report.figures import eam_fit
    from pretrain_mlip.report.style import save

    make_folder(folder)  # refused before the fit
    train, held_out = splits.train, [*splits.val, *splits.test]
    eam: EmbeddedAtom
    if settings.setfl is not None:
        eam = adopt_setfl(train, settings, held_out=held_out, reference_energies=reference_energies)
    else:
        eam = fit_eam(
            train,
            settings=settings,
            held_out=held_out,
            validation=splits.val,
            reference_energies=reference_energies,
        )
    eam.report["data_hash"] = data_hash(train)
    eam.write_setfl(folder / f"eam.eam.{eam.form}")
    stale = [f"eam.eam.{form}" for form in get_args(Form) if form != eam.form]
    for name in [*stale, "convergence.png"]:  # nothing of an earlier fit stays beside an eam.json of another
        (folder / name).unlink(missing_ok=True)
    save(eam_decomposition(eam_curves(eam)), folder / "eam.png")
    if eam.report["loss"]:
        save(eam_fit({"convergence": eam.report["loss"], "starts": eam.report["starts"]}), folder / "convergence.png")
    eam.save(folder / "eam.json")
    return eam


def eam_curves(eam: EmbeddedAtom) -> dict[str, dict[str, list[float]]]:
    """The parts of every dimer's energy, as the report draws them: density, pair (Morse and wall), atomic, total."""
    curves = {}
    for pair, parts in decompose_dimers(eam).items():
        pair_energy = [total - density for total, density in zip(parts["total"], parts["density"], strict=True)]
        curves[pair] = {
            "r": parts["r"],
            "density": parts["density"],
            "pair": pair_energy,
            "atomic": parts["atomic"],
            "total": parts["total"],
        }
    return curves


def eam_table(eam: EmbeddedAtom) -> Table:
    """Errors of a fit for the terminal."""
    rows = []
    for name in ("train", "held_out"):
        errors = eam.report.get(name)
        if errors:
            stress = errors["stress_rmse"]
            rows.append(
                [
                    name,
                    1e3 * errors["energy_rmse"],
                    errors["forces_rmse"],
                    errors["forces_rms"],
                    "-" if stress is None else stress * 160.21766,
                ]
            )
    columns = ["structures", "energy RMSE, meV/atom", "force RMSE, eV/Å", "RMS of the DFT forces", "stress RMSE, GPa"]
    return table(f"EAM ({eam.form}, {', '.join(eam.elements)}, cutoff {eam.cutoff:g} Å)", columns, rows)


def audit_table(eam: EmbeddedAtom) -> Table:
    """The audit of an EAM's curves for the terminal; energies of free dimers."""
    rows = []
    for pair, found in eam.report["audit"].items():
        seen = "never" if found["seen"] is None else f"{found['seen'][0]:.2f} to {found['seen'][1]:.2f}"
        points = [
            f"{point['kind']} {point['r']:.2f} Å ({point['energy']:.2f} eV, {point['from']})"
            for point in found["turning_points"]
        ]
        sound = "yes" if found["repulsive"] and found["monotone"] else "in free dimers" if found["repulsive"] else "NO"
        walls = [f"{found[f'wall_{wall}']:.4g} ({found[f'from_{wall}']})" for wall in ("0.5", "1.0")]
        rows.append([pair, seen, sound, *walls, "\n".join(points) or "none"])
    columns = ["pair", "seen in data, Å", "repels at contact", "at 0.5 Å, eV", "at 1.0 Å, eV", "turning points"]
    return table("audit of free dimers: what data show, and what the form alone decides (prior)", columns, rows)


def teacher_of(potential: Potential, workers: Workers | None = None) -> Teacher:
    """What the perturbation asks for labels; of many structures in worker processes, where there are any."""

    def ask(frames: Sequence[Atoms]) -> list[Labels]:
        if workers is None or not workers.several or len(frames) < MANY:
            return predict(potential, frames, description="asking the teacher")
        from pretrain_mlip.calculators.distributed import predict_with

        return predict_with(workers.client, potential, frames, description="asking the teacher")

    return ask


def coverage_table(before: Sequence[Atoms], after: Sequence[Atoms], start: float, end: float) -> Table:
    """Distances (Å) that every pair of elements has in two lists of structures, for the terminal."""
    pairs = pairs_of([*before, *after])
    both = [pair_coverage(frames, pairs, start, end) for frames in (before, after)]
    rows = []
    for pair in pairs:
        found = [coverage[pair] for coverage in both]
        closest = ["-" if one.closest is None else f"{one.closest:.2f}" for one in found]
        rows.append([pair, *closest, *(f"{one.filled} of {one.bins}" for one in found)])
    columns = ["pair", "closest before, Å", "after, Å", f"bins of {start:g} to {end:g} Å filled before", "after"]
    return table("distances of pairs, structures and perturbed structures", columns, rows)


def prepare_eam(folder: RunFolder, splits: Splits, config: RunConfig) -> EmbeddedAtom:
    """Fit the EAM of a run, or read the one that is already there."""
    if not folder.eam.exists():
        fit_and_write_eam(splits, config.eam, folder.eam.parent, config.data.reference_energies)
    return load_eam(folder.eam)


def prepare_pretraining(
    folder: RunFolder, splits: Splits, eam: EmbeddedAtom, config: RunConfig, workers: Workers | None = None
) -> dict[str, int]:
    """Perturb training and validation structures and label them; returns the counts of draws.

    Each file begins with the structures that were perturbed, as they were, in their order.
    """
    if not folder.pretraining_counts.exists():
        counts: dict[str, int] = {}
        for name in ("train", "val"):
            parents: list[Atoms] = getattr(splits, name)
            # Dimers are trained on only: their forces of thousands of eV/Å would alone decide which epoch is the best
            settings = config.perturbation if name == "train" else config.perturbation.model_copy(update={"dimers": 0})
            made = perturb(parents, settings, teacher=teacher_of(eam, workers), cutoff=eam.cutoff)
            write_structures(folder.pretraining(name), [*label_structures(eam, parents), *made.frames])
            counts = {key: counts.get(key, 0) + made.counts.get(key, 0) for key in {*counts, *made.counts}}
        write_json(folder.pretraining_counts, dict(sorted(counts.items())))
        log.info("perturbation: %s", ", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    return read_json(folder.pretraining_counts)


def prepare_foundation(folder: RunFolder, splits: Splits, eam: EmbeddedAtom, config: RunConfig) -> None:
    """Take the weights that finetuning starts from into the run, for its elements and with its energies."""
    if config.finetuning.start is None or folder.foundation.exists():
        return
    name = config.finetuning.start
    network = with_elements(read_foundation(Path(name)), eam.elements, config.finetuning.elements, name)
    potential = reconciled(network, splits.train, config.data.reference_energies)
    make_folder(folder.foundation.parent)
    save_potential(folder.foundation, potential)
