"""Potentials that were exported as TorchScript (.ts.pt) or as an AOTInductor package (.pt2), read back.

Both hold one function: (types (N,), edge_index (2, E), edge_vectors (E, 3) float64 Å, own ()) -> (atomic energies (N,)
in eV, dE/d edge_vectors (E, 3) in eV/Å), for two atoms and two edges or more. ``own`` is the number of atoms whose
energies count; atoms behind them are ghosts, see ``ghosts``. Beside it stand texts, see ``ExportInfo``.
"""

from __future__ import annotations

import json
import os
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pretrain_mlip.errors import InputError
from pretrain_mlip.potentials import ghosts, tracing  # noqa: F401  # make the operators in exported files known
from pretrain_mlip.potentials.base import DTYPES, Potential

FORMAT_VERSION = "1"
TORCHSCRIPT, PACKAGE = ".ts.pt", ".pt2"
FEWEST = 2  # atoms and edges that exported code is made for

Function = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class ExportInfo:
    """What stands beside the code, each as text.

    Attributes:
        elements: chemical symbols in the order of the types, separated by blanks.
        cutoff: Å.
        layers: the energy of an atom depends on others within layers * cutoff; 1 where each sees its neighbours only.
        exchange_width: the largest number of features of an atom that are asked for at once.
        dtype: precision of the networks; inputs and outputs are float64 whatever it is.
        device: kind of device that the code was made for.
        threads: number of threads that compiled code runs on.
        torch: version that made it. AOTInductor packages need the same one.
        made_by: version of pretrain-mlip.
        units: of the outputs.
        format_version: of all this.
    """

    elements: str
    cutoff: str
    layers: str
    exchange_width: str
    dtype: str
    device: str
    threads: str
    torch: str
    made_by: str
    units: str = "eV, Å"
    format_version: str = FORMAT_VERSION

    def as_texts(self) -> dict[str, str]:
        """Key -> text."""
        return {f"pretrain_mlip_{name}": value for name, value in asdict(self).items()}

    @classmethod
    def from_texts(cls, texts: dict[str, Any], path: str | os.PathLike[str]) -> ExportInfo:
        """What a file says of itself.

        Raises:
            InputError: it was not exported by pretrain-mlip, or by a version with another format.
        """
        given = {field.name: texts.get(f"pretrain_mlip_{field.name}") or "" for field in fields(cls)}
        given = {name: text.decode() if isinstance(text, bytes) else str(text) for name, text in given.items()}
        if not all(given.values()):
            raise InputError(f"{path}: not exported by pretrain-mlip; make it with 'pretrain-mlip export'")
        if given["format_version"] != FORMAT_VERSION:
            raise InputError(
                f"{path}: format version {given['format_version']}, this version reads {FORMAT_VERSION}; export it anew"
            )
        return cls(**given)


class Exported(Potential):
    """A potential as it was exported: energies and gradients by its code, in its precision."""

    kind = "exported"

    def __init__(self, path: Path, info: ExportInfo, function: Function) -> None:
        super().__init__(info.elements.split(), float(info.cutoff))
        self.path = path
        self.info = info
        self.function = function

    def config(self) -> dict[str, Any]:
        raise InputError(
            f"{self.path}: an exported file, which holds code and not weights; give the checkpoint (.pt) or eam.json "
            "that it was made from"
        )

    def set_dtype(self, dtype: torch.dtype) -> None:
        if dtype != DTYPES[self.info.dtype]:
            raise InputError(f"{self.path}: exported in {self.info.dtype}; export it in the precision that is wanted")

    def atomic_energies(self, types: Tensor, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        return self.energies_and_gradient(types, edge_index, edge_vectors)[0]

    def energies_and_gradient(
        self, types: Tensor, edge_index: Tensor, edge_vectors: Tensor, *, create_graph: bool = False
    ) -> tuple[Tensor, Tensor]:
        if create_graph:
            raise InputError(f"{self.path}: an exported file cannot be trained")
        return evaluate(self.function, self.cutoff, types, edge_index, edge_vectors, types.shape[0])


def evaluate(
    function: Function, cutoff: float, types: Tensor, edge_index: Tensor, edge_vectors: Tensor, own: int
) -> tuple[Tensor, Tensor]:
    """Call exported code for any numbers of atoms and edges.

    Where there are too few, a pair of atoms is added that has nothing to do with the others.

    Args:
        function: the code.
        cutoff: Å.
        types: (N,) int64.
        edge_index: (2, E) int64, neighbour and centre.
        edge_vectors: (E, 3) Å, float64.
        own: atoms whose energies count.

    Returns:
        (N,) eV, those of ghosts zero, and (E, 3) eV/Å.
    """
    atoms, edges = types.shape[0], edge_index.shape[1]
    if min(atoms, edges) < FEWEST:
        types = torch.cat([types, types.new_zeros(2)])
        edge_index = torch.cat([edge_index, edge_index.new_tensor([[atoms, atoms + 1], [atoms + 1, atoms]])], dim=1)
        apart = 0.9 * cutoff or 1.0
        edge_vectors = torch.cat([edge_vectors, edge_vectors.new_tensor([[apart, 0.0, 0.0], [-apart, 0.0, 0.0]])])
    with torch.no_grad():
        energies, gradient = function(types, edge_index.contiguous(), edge_vectors.contiguous(), torch.tensor(own))
    return energies[:atoms], gradient[:edges]


def is_exported(path: str | os.PathLike[str]) -> bool:
    """Whether the name of a file says that it was exported."""
    return Path(path).name.endswith((TORCHSCRIPT, ".ts", PACKAGE))


def load_exported(path: str | os.PathLike[str]) -> Exported:
    """A potential from a file that ``pretrain-mlip export`` wrote as TorchScript or as an AOTInductor package.

    The latter holds machine code, which runs: take such files from people whose programs you would run.

    Raises:
        InputError: the file is missing, damaged, or not ours, or it was made with another version of torch.
    """
    path = Path(path)
    _check_archive(path)
    load = _load_package if path.suffix == PACKAGE else _load_torchscript
    try:
        texts, function = load(path)
    except RuntimeError as error:
        raise InputError(f"{path}: not a readable export ({' '.join(str(error).split())[:120]})") from None
    return Exported(path, ExportInfo.from_texts(texts, path), function).eval()


def _check_archive(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except zipfile.BadZipFile:
        damaged = "the table of contents"
    if damaged is not None:
        raise InputError(f"{path}: truncated or damaged ({damaged}); export it again")


def _load_torchscript(path: Path) -> tuple[dict[str, Any], Function]:
    texts: dict[str, Any] = {f"pretrain_mlip_{field.name}": "" for field in fields(ExportInfo)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module = torch.jit.load(str(path), map_location="cpu", _extra_files=texts)
    return texts, module


def _load_package(path: Path) -> tuple[dict[str, Any], Function]:
    from torch._inductor import aoti_load_package

    texts = _texts_of_package(path)
    made_with = texts.get("pretrain_mlip_torch", torch.__version__)
    if made_with != torch.__version__:  # before its code is loaded
        raise InputError(f"{path}: made with torch {made_with}, and this is {torch.__version__}; export it again")
    model = aoti_load_package(str(path))
    return texts, lambda *inputs: tuple(model(*inputs))  # type: ignore[return-value]


def _texts_of_package(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith("_metadata.json"):
                return json.loads(archive.read(name))  # type: ignore[no-any-return]
    return {}
