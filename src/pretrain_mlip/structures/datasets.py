"""Data sets by name: two that come with the package, public ones that are fetched, and MPtrj files."""

from __future__ import annotations

import gzip
import json
import shutil
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from ase import Atoms

from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.files import atomic_path, make_folder, read_json
from pretrain_mlip.keys import CONFIG_TYPE, ENERGY, EV_PER_A3_IN_GPA, PARENT, STRUCTURE_ID
from pretrain_mlip.structures.io import AnyPath, read_structures, set_labels, write_structures
from pretrain_mlip.structures.labels import LabelKeys

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

KBAR_IN_GPA = 0.1


class DatasetInfo(NamedTuple):
    """What a data set is and where it comes from."""

    name: str
    description: str
    provenance: str
    licence: str
    citation: str
    embedded: bool


_CP2K = (
    "CP2K 2023.1, GPW, PBE, DZVP-MOLOPT-SR-GTH basis, GTH-PBE pseudopotentials, {cutoff}, REL_CUTOFF 50 Ry, Gamma "
    "point, Fermi smearing at 600 K, Broyden mixing, EPS_SCF 3e-6. Energies are GTH pseudo-total energies: fit E0s. "
    "Structures from {structures}, with random strains and rattles."
)
_OURS = "No publication; cite pretrain-mlip"
DATASETS: dict[str, DatasetInfo] = {
    info.name: info
    for info in (
        DatasetInfo(
            "silica_mini",
            "SiO2, 24 atoms: hot and strained beta-cristobalite, melts, glass; energy, forces, stress",
            _CP2K.format(
                cutoff="cutoff 400 Ry with NN10 smoothing of the density and its gradient",
                structures="classical molecular dynamics with the potential of Vashishta et al. (1997)",
            ),
            "CC0-1.0",
            _OURS,
            embedded=True,
        ),
        DatasetInfo(
            "phosphorus_mini",
            "Elemental P, 24 to 32 atoms: black (strained, hot), white P4, liquid at several densities; "
            "energy, forces, stress",
            _CP2K.format(cutoff="cutoff 200 Ry", structures="GFN1-xTB molecular dynamics"),
            "CC0-1.0",
            _OURS,
            embedded=True,
        ),
        DatasetInfo(
            "P-GAP-20",
            "Elemental P for a general-purpose potential: crystals, surfaces, nanoribbons, liquids, random structures",
            "Fetched by load-atoms from Zenodo record 4003703",
            "see Zenodo record 4003703",
            "V. L. Deringer, M. A. Caro, G. Csányi, Nature Communications 11, 5461 (2020)",
            embedded=False,
        ),
        DatasetInfo(
            "SiO2-GAP-22",
            "SiO2 for a general-purpose potential: crystals, liquids, amorphous structures; SCAN functional",
            "Fetched by load-atoms from Zenodo record 6353684",
            "see Zenodo record 6353684",
            "L. C. Erhard, J. Rohrer, K. Albe, V. L. Deringer, npj Computational Materials 8, 90 (2022)",
            embedded=False,
        ),
    )
}


def list_datasets() -> list[DatasetInfo]:
    """All data sets that have a name, the embedded ones first."""
    return list(DATASETS.values())


def dataset_info(name: str) -> DatasetInfo:
    """What is known of a data set.

    Raises:
        InputError: there is no such name; the message lists those that there are.
    """
    if name not in DATASETS:
        raise InputError(f"data set '{name}' is unknown; known: {', '.join(DATASETS)}")
    return DATASETS[name]


def load_dataset(name: str) -> list[Atoms]:
    """Structures of an embedded data set.

    Raises:
        InputError: the name is unknown, or the set has to be fetched first.
    """
    if not dataset_info(name).embedded:
        raise InputError(f"data set '{name}' is not embedded; fetch it with: pretrain-mlip datasets get {name}")
    with as_file(files("pretrain_mlip") / "data" / f"{name}.extxyz") as path:
        return read_structures(path)


def get_dataset(name: str, folder: AnyPath) -> Path:
    """Write a data set to ``folder/name.extxyz``; sets that are not embedded are downloaded.

    Raises:
        InputError: the name is unknown, or an optional package is missing.
        ComputationError: the download failed.
    """
    info = dataset_info(name)
    path = make_folder(folder) / f"{name}.extxyz"
    if info.embedded:
        with as_file(files("pretrain_mlip") / "data" / f"{name}.extxyz") as source, atomic_path(path) as temporary:
            shutil.copyfile(source, temporary)
        return path
    write_structures(path, fetch_public(name, Path(folder) / ".load-atoms"))
    return path


def fetch_public(thing: str | Path, cache: Path) -> list[Atoms]:
    """Structures of a data set that the load-atoms package knows by name, or of a local file.

    Raises:
        InputError: load-atoms is not installed.
        ComputationError: the download failed.
    """
    try:
        import load_atoms
    except ImportError:
        raise InputError(f"'{thing}' needs the load-atoms package: pip install pretrain-mlip[public]") from None
    try:
        fetched = list(load_atoms.load_dataset(thing, root=cache))
    except Exception as error:  # it wraps network errors in bare exceptions
        cause = error.__cause__ or error
        detail = " ".join(str(cause).split())[:160]
        raise ComputationError(
            f"data set '{thing}' could not be fetched ({type(cause).__name__}: {detail}); is there internet access?"
        ) from error
    # Sets made for GAP carry a virial (eV) in place of a stress.
    has_virial = any("virial" in atoms.info for atoms in fetched)
    return read_structures(fetched, keys=LabelKeys(virials_key="virial" if has_virial else None), require=(ENERGY,))


def read_mptrj(path: AnyPath) -> list[Atoms]:
    """Read a JSON file (also .json.gz) in the format of MPtrj, the trajectories of the Materials Project.

    The format is {mp-id: {frame-id: {structure, corrected_total_energy, force, stress, ...}}}. The energy taken is
    ``corrected_total_energy`` (eV), forces are in eV/Å, and the 3x3 stress is VASP's in kbar, whose sign is opposite to
    ASE's: 1 kbar becomes -0.1 GPa. The whole file is held in memory: cut MPtrj to the elements you need first.

    Returns:
        Structures whose info ``parent`` is the mp-id, so that the frames of one material stay in one split.

    Raises:
        InputError: pymatgen is not installed, the file is not of this format, or a frame lacks a label.
    """
    path = Path(path)
    content = _read_gzipped_json(path) if path.suffix == ".gz" else read_json(path)
    if not isinstance(content, dict) or not all(isinstance(frames, dict) for frames in content.values()):
        raise InputError(f"{path}: not in the format of MPtrj, {{mp-id: {{frame-id: {{structure, ...}}}}}}")
    return read_structures(list(_mptrj_frames(path, content)))


def _mptrj_frames(path: Path, content: Mapping[str, Mapping[str, Any]]) -> Iterator[Atoms]:
    try:
        from pymatgen.core import Structure
    except ImportError:
        raise InputError(f"{path}: MPtrj files need pymatgen: pip install pretrain-mlip[public]") from None
    for material, frames in content.items():
        for name, frame in frames.items():
            try:
                structure = Structure.from_dict(frame["structure"])
                energy = float(frame["corrected_total_energy"])
                forces = np.array(frame["force"], dtype=float)
                stress = np.array(frame["stress"], dtype=float).reshape(3, 3) * -KBAR_IN_GPA / EV_PER_A3_IN_GPA
            except KeyError as error:
                raise InputError(f"{path}: {material}, frame {name}: no {error} in it; is this MPtrj?") from None
            except (TypeError, ValueError) as error:
                raise InputError(f"{path}: {material}, frame {name}: cannot be read ({error})") from None
            symbols = [site.specie.symbol for site in structure]
            atoms = Atoms(symbols, positions=structure.cart_coords, cell=structure.lattice.matrix, pbc=True)
            atoms.info = {CONFIG_TYPE: "MPtrj", PARENT: material, STRUCTURE_ID: name}
            set_labels(atoms, energy, forces, stress)
            yield atoms


def _read_gzipped_json(path: Path) -> Any:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            return json.load(stream)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"{path}: not a readable gzipped JSON file ({error})") from None


def read_data(
    source: Sequence[str], *, keys: LabelKeys | None = None, require: Sequence[str] = ("energy", "forces")
) -> list[Atoms]:
    """Structures from files, or from an embedded data set by its name; a file of that name goes before it.

    Raises:
        InputError: see ``read_structures``.
    """
    frames: list[Atoms] = []
    for name in source:
        if name in DATASETS and not Path(name).exists():
            frames += load_dataset(name)
        else:
            frames += read_structures(name, keys=keys, require=require)
    return frames
