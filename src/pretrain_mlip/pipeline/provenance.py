"""Where results come from: versions, hardware, seeds, data."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pretrain_mlip.files import sha256

REPORTED_VERSIONS = (
    "pretrain-mlip",
    "torch",
    "torch-geometric",
    "lightning-fabric",
    "ase",
    "matscipy",
    "numpy",
    "scipy",
)


def provenance(
    *, seeds: Mapping[str, Any], data: Mapping[Path, int | None], hardware: Mapping[str, Any]
) -> dict[str, Any]:
    """Section ``provenance`` of results.json, now and here.

    Args:
        seeds: what was seeded -> seed.
        data: files -> number of structures that are used; those that are not there are left out.
        hardware: what is to be told besides the processor and its cores.
    """
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in REPORTED_VERSIONS},
        "hardware": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count() or 0,
            **hardware,
        },
        "seeds": dict(seeds),
        "data": [
            {"path": str(path), "sha256": sha256(path), "frames": frames}
            for path, frames in data.items()
            if path.is_file()
        ],
    }
