"""Potentials on disk: weights, a JSON-able configuration and a format version; never pickled classes."""

from __future__ import annotations

import io
import lzma
import os
import pickle
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from pretrain_mlip.errors import InputError
from pretrain_mlip.files import atomic_path
from pretrain_mlip.potentials.base import DTYPES, Potential, ReferenceEnergies, SumPotential
from pretrain_mlip.potentials.compiled import uncompiled
from pretrain_mlip.potentials.eam.embedded_atom import EmbeddedAtom
from pretrain_mlip.potentials.eam.form import EAM
from pretrain_mlip.potentials.eam.setfl_reading import SUFFIXES, read_setfl
from pretrain_mlip.potentials.eam.storage import eam_from_config, load_eam
from pretrain_mlip.potentials.eam.tabulated import TabulatedEAM
from pretrain_mlip.potentials.ensemble import Ensemble
from pretrain_mlip.potentials.exported import is_exported, load_exported
from pretrain_mlip.potentials.networks import available_models, build_model
from pretrain_mlip.potentials.zbl import ZBL

FORMAT = "pretrain-mlip"
FORMAT_VERSION = 1
_UNREADABLE = (  # what torch.load raises for files that torch.save did not write
    *(pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError),
    *(RuntimeError, LookupError, TypeError, ValueError, AttributeError),
)


def potential_from_config(config: dict[str, Any]) -> Potential:
    """The potential that ``Potential.config`` describes, with fresh weights.

    Raises:
        InputError: the configuration is not one of ours.
    """
    try:
        kind = config["kind"]
        if kind == SumPotential.kind:
            return SumPotential([potential_from_config(part) for part in config["parts"]])
        if kind == Ensemble.kind:
            return Ensemble([potential_from_config(part) for part in config["parts"]])
        if kind == ReferenceEnergies.kind:
            return ReferenceEnergies(config["energies"])
        if kind == ZBL.kind:
            return ZBL(config["elements"], config["ranges"])
        if kind in (EAM.kind, TabulatedEAM.kind):
            return eam_from_config(config)
        if kind in available_models():
            return build_model(kind, config["elements"], **config["hyperparameters"])
    except (KeyError, TypeError) as error:
        raise InputError(f"damaged configuration of a potential: {error!r}") from error
    raise InputError(f"a potential of kind '{kind}' is not known to this version")


def checkpoint_content(potential: Potential, **extra: Any) -> dict[str, Any]:
    """What a checkpoint holds: the potential and whatever plain data the caller adds."""
    potential = uncompiled(potential)
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "config": potential.config(),
        "dtype": _dtype_name(potential),
        "state": potential.state_dict(),
        **({"report": potential.report} if isinstance(potential, EmbeddedAtom) else {}),
        **extra,
    }


def write_checkpoint(path: str | os.PathLike[str], content: dict[str, Any]) -> None:
    """Write a checkpoint to a temporary name and move it into place."""
    memory = io.BytesIO()  # a disk that is full is an OSError then, and not what torch makes of it
    torch.save(content, memory)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        stream.write(memory.getbuffer())
        stream.flush()
        os.fsync(stream.fileno())  # or a power failure may leave a name without content


def read_torch_file(path: str | os.PathLike[str]) -> Any:
    """What torch.save wrote, on the CPU, without unpickling code: tensors and plain Python values only.

    Raises:
        InputError: the file is missing, truncated, damaged (its checksums are compared), written by something else, or
            holds objects that are code.
    """
    if Path(path).is_dir():
        raise InputError(f"{path}: a folder; a potential that MatGL saved is read with PretrainedMLIP.from_matgl")
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    try:
        _refuse_damaged(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if found := re.search(r"(?:GLOBAL|Unsupported class|type) ([A-Za-z_][\w.]*\.\w+)", str(error)):
            raise InputError(
                f"{path}: holds an object of class {found[1]}, which is code and is not loaded; save it again with "
                "tensors and plain Python values only"
            ) from None
        raise InputError(f"{path}: not a readable checkpoint") from None
    except InputError:
        raise
    except _UNREADABLE as error:
        raise InputError(f"{path}: not a readable checkpoint ({' '.join(str(error).split())[:120]})") from None


def _refuse_damaged(path: str | os.PathLike[str]) -> None:
    """Compare the checksums that torch writes and does not look at."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise InputError(f"{path}: damaged ('{damaged}' in it is not what was written)")


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a checkpoint of ours, on the CPU, without unpickling code.

    Raises:
        InputError: the file is missing, truncated, or not a checkpoint written by pretrain-mlip.
    """
    content = read_torch_file(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        theirs = isinstance(content, dict) and "hyper_parameters" in content
        remedy = "; one of TorchMD-NET is read with PretrainedMLIP.from_torchmd_net" if theirs else ""
        raise InputError(f"{path}: not a checkpoint of pretrain-mlip{remedy}")
    if content.get("format_version") != FORMAT_VERSION:
        raise InputError(f"{path}: format version {content.get('format_version')}, this version reads {FORMAT_VERSION}")
    return content


def save_potential(path: str | os.PathLike[str], potential: Potential, **extra: Any) -> None:
    """Write a potential as a checkpoint."""
    write_checkpoint(path, checkpoint_content(potential, **extra))


def potential_from_content(content: dict[str, Any]) -> Potential:
    """The potential in a checkpoint's content, in evaluation mode with frozen weights.

    Raises:
        InputError: the content is not that of a checkpoint of ours.
    """
    try:
        potential = potential_from_config(content["config"])
        potential.set_dtype(DTYPES[content["dtype"]])
        potential.load_state_dict(content["state"])
    except InputError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise InputError(f"damaged checkpoint ({' '.join(str(error).split())[:120]})") from error
    if isinstance(potential, EmbeddedAtom):
        potential.report = content.get("report", {})
    return potential.eval().requires_grad_(False)  # noqa: FBT003


def load_potential(path: str | os.PathLike[str]) -> Potential:
    """A potential from a checkpoint (.pt), eam.json, setfl tables (.alloy, .fs, .setfl) or an export (.ts.pt, .pt2).

    Raises:
        InputError: the file is missing, damaged or not ours.
    """
    if Path(path).suffix == ".json":
        return load_eam(path)
    if Path(path).suffix in SUFFIXES:
        return read_setfl(path)
    if is_exported(path):
        return load_exported(path)
    try:
        return potential_from_content(read_checkpoint(path))
    except InputError as error:
        message = str(error)
        raise InputError(message if message.startswith(str(path)) else f"{path}: {message}") from error


def _dtype_name(potential: Potential) -> str:
    """The precision of the networks in a potential; float64 where there are none."""
    single = any(value.dtype == torch.float32 for value in potential.parameters())
    return "float32" if single else "float64"
