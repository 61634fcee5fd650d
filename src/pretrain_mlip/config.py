"""The configuration of a run: every group of settings, with defaults for a few hundred structures."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from pretrain_mlip.dynamics.protocols import HeatRun, MDSettings, SqueezeRun
from pretrain_mlip.dynamics.survival import StabilitySettings
from pretrain_mlip.errors import InputError
from pretrain_mlip.potentials.eam.settings import EAMSettings
from pretrain_mlip.settings import Settings, renamed
from pretrain_mlip.structures.io import LabelKeys
from pretrain_mlip.structures.perturbation import PerturbationSettings
from pretrain_mlip.structures.splits import SplitSettings
from pretrain_mlip.training.settings import (
    ElementMatch,
    ReplaySettings,
    SAMSettings,
    StrategyName,
    TrainingSettings,
)


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _as_source(value: Any) -> Any:
    return {"source": value} if isinstance(value, str | list) else value


def _as_structures(value: Any) -> Any:
    return {"structures": value} if isinstance(value, str | list) else value


class DataSettings(Settings):
    """DFT structures. A file name, or a list of them, in place of this group means ``source``."""

    source: Annotated[list[str], BeforeValidator(_as_list)] = Field(
        min_length=1, description="files, or the name of an embedded data set; required"
    )
    keys: LabelKeys = Field(default_factory=LabelKeys, description="names of the labels, where they are unusual")
    split: SplitSettings = Field(default_factory=SplitSettings, description="training, validation and test sets")
    reference_energies: dict[str, float] = Field(
        default_factory=dict, description="E0 of elements in eV; isolated atoms in the data or a fit give the others"
    )


class ModelSettings(Settings):
    """The network."""

    name: str = Field(default="cgcnn", description="architecture")
    hyperparameters: dict[str, Any] = Field(default_factory=dict, description="of the architecture, see its page")


class FinetuningSettings(Settings):
    """What finetuning does differently; epochs, batches and loss are those of the training on DFT."""

    start: str | None = Field(
        default=None,
        description="checkpoint to start from in place of a pretraining: ours, a folder of MatGL's, a .ckpt of "
        "TorchMD-NET's; its network is then that of the run",
    )
    elements: ElementMatch = Field(
        default="same",
        description="elements of that checkpoint: same as in the data; subset: others of it are dropped; any: those "
        "that it lacks are added with average weights too",
    )

    learning_rate: float | None = Field(
        default=None, gt=0, description="highest learning rate; null: that of the architecture"
    )
    freeze: list[str] = Field(
        default_factory=list, description="parts of the network that keep their pretrained weights, such as embedding"
    )


class DeltaSettings(Settings):
    """A network on top of the EAM."""

    pretrained: bool = Field(
        default=True, description="start from the features of the strategy pretrain; false: from random weights"
    )
    replay: bool = Field(
        default=False, description="hold the network at zero on perturbed structures, as many as replay says"
    )


class HeatSettings(StabilitySettings):
    """A survival campaign under heat."""

    md: HeatRun = Field(  # type: ignore[reportIncompatibleVariableOverride]  # narrower, for its defaults
        default_factory=HeatRun, description="the run that every replica makes"
    )


class SqueezeSettings(StabilitySettings):
    """A survival campaign under compression."""

    md: SqueezeRun = Field(  # type: ignore[reportIncompatibleVariableOverride]  # narrower, for its defaults
        default_factory=SqueezeRun, description="the run that every replica makes"
    )


class RDFRun(MDSettings):
    """A Langevin run at constant temperature."""

    temperature: float = Field(default=2000.0, ge=0, description="temperature at the start in K")
    duration_ps: float = Field(default=2.0, gt=0, description="length of the run in ps")
    save_every: int = Field(default=20, ge=1, description="steps between saved frames")


class RDFSettings(Settings):
    """Radial distribution functions of MD beside those of DFT structures."""

    config_type: str | None = Field(
        default=None, description="DFT structures to compare with; null: the most frequent kind"
    )
    r_max: float = Field(default=6.0, gt=0, description="largest distance, Å")
    bins: int = Field(default=120, ge=10, description="number of bins")
    equilibration_ps: float = Field(default=0.3, ge=0, description="part of the run that is left out")
    md: RDFRun = Field(default_factory=RDFRun, description="the run that every potential makes")


class VerificationSettings(Settings):
    """Checks of every potential, those of the command verify."""

    thorough: bool = Field(
        default=False,
        description="also what tests the program and not the weights: threads, and memory over 1000 calls",
    )


class PhononSettings(Settings):
    """Phonons of crystals by every potential. A file name, or a list of them, means ``structures``."""

    structures: Annotated[list[str], BeforeValidator(_as_list)] = Field(
        min_length=1, description="files, whose last structure is the crystal; required"
    )
    length: float = Field(default=12.0, gt=0, description="least width of the supercell, Å")
    displacement: float = Field(default=0.01, gt=0, description="of atoms, Å")


class RunConfig(Settings):
    """A whole run. ``compare`` is another name of ``strategies``."""

    aliases = {"compare": "strategies"}  # noqa: RUF012  # a class variable of the base

    output: str = Field(default="runs/run", description="folder of the run")
    seed: int = Field(default=0, ge=0, description="seed of weights, order of structures and replicas")
    seeds: int = Field(
        default=1,
        ge=1,
        description="runs that differ in their seeds, from this one on; their mean and spread are reported",
    )
    ensemble: int = Field(
        default=1,
        ge=1,
        description="networks of every strategy, which act as one potential: their mean, with a standard deviation",
    )
    device: str = Field(default="cpu", description="cpu, cuda, or auto for a GPU where there is one")
    workers: int = Field(default=2, ge=1, description="processes for strategies and MD replicas, one thread each")
    scheduler: str | None = Field(
        default=None, description="address of a Dask scheduler, tcp://host:port, whose workers are taken instead"
    )
    threads: int = Field(
        default=1, ge=1, description="threads of the main process; more help from about 1000 atoms a batch on"
    )
    devices: int = Field(
        default=1, ge=1, description="processes that share every training, each with a GPU or its threads of the CPU"
    )
    store_above: float = Field(
        default=64.0, ge=0, description="size of a file of structures in MB above which its graphs stay on disk"
    )
    strategies: list[StrategyName] = Field(
        default=["vanilla", "finetune", "replay"],
        min_length=1,
        description="what is trained; finetune brings pretrain along",
    )
    data: Annotated[DataSettings, BeforeValidator(_as_source)] = Field(
        description="DFT structures, their labels and splits; required"
    )
    eam: EAMSettings = Field(default_factory=EAMSettings, description="the embedded-atom potential")
    perturbation: PerturbationSettings = Field(
        default_factory=PerturbationSettings, description="structures that the EAM labels"
    )
    model: ModelSettings = Field(default_factory=ModelSettings, description="the network")
    training: TrainingSettings = Field(
        default_factory=TrainingSettings, description="training on DFT, of every strategy"
    )
    pretraining: TrainingSettings = Field(default_factory=TrainingSettings, description="training on EAM labels")
    finetuning: FinetuningSettings = Field(
        default_factory=FinetuningSettings, description="what finetuning does differently"
    )
    sam: SAMSettings = Field(default_factory=SAMSettings, description="what the strategy sam does differently")
    replay: ReplaySettings = Field(
        default_factory=ReplaySettings, description="perturbed structures in batches of finetuning"
    )
    delta: DeltaSettings = Field(default_factory=DeltaSettings, description="a network on top of the EAM")
    stability: HeatSettings | None = Field(
        default_factory=HeatSettings, description="heating runs until failure; null leaves them out"
    )
    squeeze: SqueezeSettings | None = Field(
        default=None, description="runs in a shrinking cell until failure; null leaves them out"
    )
    rdf: RDFSettings | None = Field(
        default_factory=RDFSettings, description="radial distributions; null leaves them out"
    )
    verification: VerificationSettings | None = Field(
        default_factory=VerificationSettings, description="checks of every potential; null leaves them out"
    )
    phonons: Annotated[PhononSettings | None, BeforeValidator(_as_structures)] = Field(
        default=None, description="phonons of crystals; null leaves them out"
    )

    @model_validator(mode="before")
    @classmethod
    def _compare(cls, content: Any) -> Any:
        try:
            return renamed(content, cls.aliases, "settings") if isinstance(content, dict) else content
        except InputError as error:
            raise ValueError(str(error)) from error
