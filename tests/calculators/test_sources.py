"""Calculators by file and by function, and what is said where that fails."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from ase.calculators.emt import EMT
from tests.conftest import hard_eam, quartz

from pretrain_mlip.calculators.sources import name_of_file, source_of_file, source_of_function
from pretrain_mlip.errors import InputError
from pretrain_mlip.potentials.checkpoint import save_potential

CODE = """
from __future__ import annotations
from dataclasses import dataclass
from ase.calculators.emt import EMT
@dataclass
class Options:
    cutoff: bool = True
class Deep:
    @staticmethod
    def make():
        return EMT(asap_cutoff=Options().cutoff)
def broken():
    raise RuntimeError("no weights")
def other():
    return 3
number = 3
"""


def test_files(tmp_path: Path) -> None:
    folder = tmp_path / "finetune"
    folder.mkdir()
    save_potential(folder / "best.pt", hard_eam())
    source = pickle.loads(pickle.dumps(source_of_file(folder / "best.pt", device="cpu")))  # noqa: S301
    assert (source.name, source.elements) == ("finetune", tuple(hard_eam().elements))
    atoms = quartz()
    atoms.calc = source.make()
    assert atoms.get_forces().shape == (len(atoms), 3)
    assert source.make() is not source.make()
    assert source_of_file(folder / "best.pt", ["Si"], device="cpu").elements == ("Si",)
    with pytest.raises(InputError, match=r"does not support the element Fe; it knows O, Si"):
        source_of_file(folder / "best.pt", ["Si", "Fe"], device="cpu")


@pytest.mark.parametrize(
    ("path", "name"), [("a/eam.json", "eam"), ("runs/x/models/sam/last.pt", "sam"), ("best.pt", "best")]
)
def test_names(path: str, name: str) -> None:
    assert name_of_file(path) == name


def test_functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of_function("ase.calculators.emt:EMT", ["Cu"])
    assert (source.name, source.elements) == ("EMT", ("Cu",))
    assert isinstance(pickle.loads(pickle.dumps(source)).make(), EMT)  # noqa: S301
    (tmp_path / "mine_for_test_sources.py").write_text(CODE)
    (tmp_path / "ase.py").write_text(CODE)  # called like a module that is there
    assert source_of_function(f"{tmp_path}/ase.py:Deep.make").make().parameters.asap_cutoff
    assert source_of_function(f"{tmp_path}/mine_for_test_sources.py:Deep.make").make().parameters.asap_cutoff
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["/nowhere"])
    assert source_of_function("mine_for_test_sources:Deep.make").make().parameters.asap_cutoff


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ase.calculators.emt", "expected module:function"),
        (":EMT", "expected module:function"),
        ("no_such_module:make", "cannot import no_such_module: ModuleNotFoundError"),
        ("absent.py:make", "there is no file absent.py"),
        ("FILE:missing", "has no function 'missing'"),
        ("FILE:number", "has no function 'number'"),
        ("FILE:broken", "RuntimeError: no weights"),
        ("FILE:other", "returned int, not an ASE calculator"),
        ("BAD:make", "cannot import .*SyntaxError"),
    ],
)
def test_what_makes_no_calculator(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(CODE)
    (tmp_path / "bad.py").write_text("def make(:\n")
    name = name.replace("FILE", f"{tmp_path}/mine.py").replace("BAD", f"{tmp_path}/bad.py")
    with pytest.raises(InputError, match=message):
        source_of_function(name)


def test_unknown_elements() -> None:
    with pytest.raises(InputError, match="unknown element 'Xx'"):
        source_of_function("ase.calculators.emt:EMT", ["Cu", "Xx"])
