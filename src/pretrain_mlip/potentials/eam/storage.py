"""eam.json: an embedded-atom potential as text."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from pretrain_mlip.errors import InputError
from pretrain_mlip.files import read_json, write_json
from pretrain_mlip.potentials.eam.embedded_atom import EmbeddedAtom
from pretrain_mlip.potentials.eam.form import EAM
from pretrain_mlip.potentials.eam.tabulated import TabulatedEAM

FORMAT = "pretrain-mlip-eam"
FORMAT_VERSION = 2


def save_eam(eam: EmbeddedAtom, path: str | os.PathLike[str]) -> None:
    """Write eam.json."""
    values = {name: value.tolist() for name, value in eam.state_dict().items()}
    content = {"format": FORMAT, "format_version": FORMAT_VERSION}
    write_json(path, content | eam.config() | {"parameters": values, "report": eam.report})


def load_eam(path: str | os.PathLike[str]) -> EmbeddedAtom:
    """Read eam.json.

    Raises:
        InputError: the file is missing, is not JSON or is not an EAM of ours.
    """
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path}: not an EAM written by pretrain-mlip (fit-eam writes one)")
    if content.get("format_version") != FORMAT_VERSION:
        raise InputError(f"{path}: format version {content.get('format_version')}, this version reads {FORMAT_VERSION}")
    try:
        eam = eam_from_config(content)
        state = {name: torch.tensor(value, dtype=torch.float64) for name, value in content["parameters"].items()}
        eam.load_state_dict(state)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise InputError(f"{Path(path)}: damaged EAM file ({' '.join(str(error).split())})") from error
    if not all(bool(torch.isfinite(value).all()) for value in state.values()):
        raise InputError(f"{Path(path)}: damaged EAM file (a parameter is not finite)")
    eam.report = content.get("report", {})
    return eam.requires_grad_(False)  # noqa: FBT003


def eam_from_config(config: dict[str, Any]) -> EmbeddedAtom:
    """The EAM that ``config`` describes, with parameters still to be loaded; KeyError where it is none."""
    kinds = {EAM.kind: EAM, TabulatedEAM.kind: TabulatedEAM}
    return kinds[config["kind"]].from_config(config)
