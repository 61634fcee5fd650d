"""Programs that several modules start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.lammps_environment import mliap_program, with_plugin

from pretrain_mlip.deploy.lammps.runs import find_program


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with with_plugin(tmp_path_factory) as folder:
        yield folder


@pytest.fixture(scope="session")
def lmp(plugin: Path) -> Path:
    assert plugin.is_dir()
    return find_program()


@pytest.fixture(scope="session")
def mliap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mliap_program(tmp_path_factory)
