"""results.json: everything that a run found out, for machines; the report is drawn from it and from nothing else.

Every section is optional: a run without MD has no ``survival``. Units: eV, Å, ps, K unless a field says otherwise.
``Model`` below is the name of a trained strategy ("vanilla", "finetune", ...) or "eam"; ``Pair`` is "O-Si", symbols
sorted. A value that does not exist or is not finite is null.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pretrain_mlip import files
from pretrain_mlip.errors import InputError

if TYPE_CHECKING:
    import os

FILE_NAME = "results.json"
FORMAT_VERSION = 1
Model = str
Pair = str
Numbers = list[float | None]


class Section(BaseModel):
    """Base of all parts: a misspelt key is an error."""

    model_config = ConfigDict(extra="forbid")


class DataFile(Section):
    """One file that went into the run."""

    path: str
    sha256: str
    frames: int | None = Field(default=None, description="Frames that the run uses, of its own files.")


class Provenance(Section):
    """What is needed to make the run again, and to judge its times."""

    created: str = Field(description="Date and time of the end of the run, ISO 8601.")
    command: str = Field(default="", description="Command line.")
    versions: dict[str, str] = Field(default_factory=dict, description="Package -> version, python included.")
    hardware: dict[str, str | int | float] = Field(default_factory=dict, description="Processor, GPU, threads, memory.")
    seeds: dict[str, int | list[int]] = Field(default_factory=dict, description="What was seeded -> seed or seeds.")
    data: list[DataFile] = Field(default_factory=list, description="Input files.")


class Dataset(Section):
    """The DFT data."""

    name: str
    description: str = ""
    frames: int
    atoms: int = Field(description="Atoms of all frames together.")
    elements: list[str]
    config_types: dict[str, int] = Field(default_factory=dict, description="config_type -> frames.")
    closest: dict[Pair, float | None] = Field(default_factory=dict, description="Shortest distance trained on, Å.")
    pretraining_frames: int | None = Field(default=None, description="Perturbed structures labelled by the EAM.")


class ErrorRow(Section):
    """Errors on a group of frames: energies meV/atom, force components meV/Å, stress components GPa."""

    frames: int
    atoms: int
    energy_mae: float | None = None
    energy_rmse: float | None = None
    forces_mae: float | None = None
    forces_rmse: float | None = None
    forces_rms_reference: float | None = None
    stress_mae: float | None = None
    stress_rmse: float | None = None


class EAMFit(Section):
    """The fit of the teacher."""

    elements: list[str]
    pairs: list[Pair]
    cutoff: float = Field(description="Å.")
    form: str = Field(default="", description="Functional form in a few words, e.g. eam/alloy.")
    parameters: int | None = Field(default=None, description="Number of fitted parameters.")
    errors: dict[str, ErrorRow] = Field(
        default_factory=dict, description="'train', 'test', and 'baseline' (one constant energy per element)."
    )
    starts: list[Numbers] = Field(
        default_factory=list, description="Losses of each start of the optimiser on a few frames, by iteration."
    )
    convergence: Numbers = Field(default_factory=list, description="Loss of the fit to all frames, by iteration.")
    repulsive: dict[Pair, bool] = Field(
        default_factory=dict, description="Whether the pair repels everywhere inside 0.6 of its covalent length."
    )


class ParityPoints(Section):
    """Reference and predicted values, one to one."""

    reference: list[float]
    predicted: list[float]


class Parity(Section):
    """Test set: energies in eV/atom above a sum of constants per element, force components in eV/Å."""

    energy: ParityPoints
    forces: ParityPoints


class Learning(Section):
    """Course of a training; lists of equal length, one entry per validation."""

    epoch: Numbers
    step: Numbers = Field(default_factory=list, description="Optimiser steps.")
    dft_steps: Numbers = Field(default_factory=list, description="Gradient steps on DFT data; 0 while pretraining.")
    train_loss: Numbers = Field(default_factory=list)
    val_energy_mae: Numbers = Field(default_factory=list, description="meV/atom, on labels as trained on.")
    val_forces_mae: Numbers = Field(default_factory=list, description="meV/Å, on labels as trained on.")
    learning_rate: Numbers = Field(default_factory=list)


class Curve(Section):
    """A dimer scan; energy relative to the largest distance, force positive where the atoms repel."""

    r: Numbers
    energy: Numbers
    force: Numbers = Field(default_factory=list)


class Decomposition(Section):
    """The EAM energy of a dimer and its parts, relative to separated atoms; atomic is the sum of the constants E0."""

    r: Numbers
    density: Numbers
    pair: Numbers
    atomic: Numbers
    total: Numbers


class SurvivalCurve(Section):
    """Kaplan-Meier step function with its confidence band, as dynamics.kaplan_meier.survival_curve gives it."""

    time: Numbers
    fraction: Numbers
    low: Numbers
    high: Numbers


class SurvivalSummary(Section):
    """As dynamics.kaplan_meier.survival_summary gives it."""

    replicas: int
    median_ps: float | None = Field(default=None, description="null when more than half survive.")
    mean_ps: float = Field(description="Restricted to the duration.")
    area: float = Field(description="Area under the curve over the duration; 1 = all survive.")
    stable_fraction: float
    failures: dict[str, int] = Field(default_factory=dict, description="Check -> number of replicas.")
    duration_ps: float


class Survival(Section):
    """MD of one model; ``replicas`` are ReplicaResult.to_dict()."""

    replicas: list[dict[str, Any]]
    curve: SurvivalCurve
    summary: SurvivalSummary


class RDFSection(Section):
    """Functions as RDF.to_dict() gives them, and their mean absolute differences from the reference."""

    reference: dict[str, Any] | None = Field(default=None, description="From the DFT frames.")
    models: dict[Model, dict[str, Any]] = Field(default_factory=dict)
    mae: dict[Model, dict[str, float]] = Field(default_factory=dict, description="Model -> 'total' or pair -> MAE.")
    mae_errors: dict[Model, dict[str, float | None]] = Field(
        default_factory=dict, description="Their standard errors, by averages over blocks of frames."
    )
    description: str = Field(default="", description="Which structures and which temperature.")


class PairDistances(Section):
    """Histogram of pair distances before and after the perturbation: pairs per frame and per Å."""

    r: Numbers = Field(description="Centres of the bins, Å.")
    before: Numbers
    after: Numbers


class VerificationRow(Section):
    """One check, as ``validation.verification.verify`` gives it."""

    category: str = Field(description="mandatory or informational.")
    grade: str = Field(description="A to D or F where the error is graded, else P, F, or - where it does not apply.")
    error: float | None = None
    detail: str = ""


class Band(Section):
    """A piece of the path through the zone."""

    labels: tuple[str, str]
    distances: Numbers
    frequencies: list[Numbers] = Field(description="(points, modes) in THz, imaginary ones negative.")


class PhononBands(Section):
    """Of ``validation.properties.phonons.phonons`` what the report shows; THz. Bands are none where it failed."""

    bands: list[Band] = Field(default_factory=list)
    acoustic_at_gamma: float | None = Field(default=None, description="Largest of those that have to be zero.")
    lowest: float | None = None
    imaginary: bool = False
    space_group: str = ""
    failed: str = Field(default="", description="Why there is nothing.")


class ResultsFile(Section):
    """A file named results.json."""

    format_version: Literal[1] = FORMAT_VERSION
    title: str = Field(default="", description="Heading of the report.")

    def write(self, folder: str | os.PathLike[str]) -> Path:
        """Write results.json into a folder; numbers that are not finite become null."""
        path = Path(folder) / FILE_NAME
        sections = {key: value for key, value in self.model_dump(mode="json").items() if value is not None}
        files.write_json(path, _finite(sections))
        return path

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Self:
        """Read results.json of a folder.

        Raises:
            InputError: it is missing, or not in this format; names the place in it that is wrong.
        """
        path = Path(folder) / FILE_NAME
        content = files.read_json(path)
        version = content.get("format_version") if isinstance(content, dict) else None
        if version != FORMAT_VERSION:
            raise InputError(
                f"{path}: format_version {version} is not {FORMAT_VERSION}; run it again with this version"
            )
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InputError(f"{path}: '{where}': {first['msg']}") from None


class Results(ResultsFile):
    """The whole file."""

    provenance: Provenance | None = None
    dataset: Dataset | None = None
    splits: dict[str, int] | None = Field(default=None, description="train, val, test -> frames.")
    eam: EAMFit | None = None
    errors: dict[Model, dict[str, ErrorRow]] | None = Field(
        default=None, description="On test frames: model -> config_type or 'all' -> errors (mean over seeds)."
    )
    seed_errors: dict[Model, list[ErrorRow]] | None = Field(
        default=None, description="Model -> the 'all' row of each seed, where several were trained."
    )
    parity: dict[Model, Parity] | None = None
    learning: dict[Model, Learning] | None = None
    dimers: dict[Model, dict[Pair, Curve]] | None = None
    dimer_metrics: dict[Model, dict[Pair, dict[str, Any]]] | None = Field(
        default=None, description="As validation.dimers.dimer_metrics gives them."
    )
    eam_decomposition: dict[Pair, Decomposition] | None = None
    survival: dict[Model, Survival] | None = Field(default=None, description="MD with a temperature ramp.")
    squeeze: dict[Model, Survival] | None = Field(default=None, description="MD while the volume shrinks.")
    rdf: RDFSection | None = None
    pair_distances: dict[Pair, PairDistances] | None = None
    verification: dict[Model, dict[str, VerificationRow]] | None = Field(
        default=None, description="Model -> check -> how it ended."
    )
    phonons: dict[str, dict[Model, PhononBands]] | None = Field(default=None, description="Crystal -> model -> bands.")
    timings: dict[str, float] | None = Field(default=None, description="Stage -> seconds.")
    config: dict[str, Any] | None = Field(default=None, description="The resolved configuration.")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
