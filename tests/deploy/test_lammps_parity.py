"""Through LAMMPS, potentials give the numbers that they give in ASE, on any number of processes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.constraints import FixAtoms
from tests.conftest import ELEMENTS, STRUCTURES
from tests.export_potentials import network, potential_named

from pretrain_mlip import PretrainedMLIP
from pretrain_mlip.deploy.exports import in_precision, write_export
from pretrain_mlip.deploy.lammps import doctor, parity
from pretrain_mlip.deploy.lammps.mliap import write_mliap
from pretrain_mlip.deploy.lammps.parity import TOLERANCES, Comparison, Parity
from pretrain_mlip.deploy.lammps.runs import BAR, Found, periodic, potential_lines, single_point
from pretrain_mlip.errors import InputError
from pretrain_mlip.potentials.base import Potential
from pretrain_mlip.potentials.checkpoint import save_potential

NAMES = ["eam", "cgcnn", "m3gnet", "torchmd_net", "eam + m3gnet"]


def structures(reach: float) -> dict[str, Atoms]:
    """All periodic: of the hard cases, and enough atoms that four processes have some inside."""
    found = {name: periodic(atoms, reach) for name, atoms in STRUCTURES.items()}
    found["many"] = STRUCTURES["triclinic"] * (4, 3, 2)
    found["many"].rattle(0.05, seed=2)
    return found


def expected(potential: Potential, atoms: Atoms) -> Found:
    atoms = atoms.copy()
    atoms.calc = PretrainedMLIP(potential)
    return Found(atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress())


def check(found: Found, right: Found, atoms: Atoms, dtype: str = "float64") -> None:
    limit = TOLERANCES[dtype]
    assert abs(found.energy - right.energy) <= limit.energy * len(atoms)
    assert np.abs(found.forces - right.forces).max() <= limit.forces
    assert np.abs(found.stress - right.stress).max() * BAR <= limit.pressure


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exported")


def file_of(folder: Path, name: str, dtype: str = "float64") -> Path:
    path = folder / f"{name.replace(' ', '')}-{dtype}.ts.pt"
    if not path.exists():
        write_export(potential_named(name), path, "torchscript", dtype=dtype)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("name", NAMES)
def test_pair_style(name: str, ranks: int, lmp: Path, exported: Path, tmp_path: Path) -> None:
    potential = potential_named(name)
    lines = potential_lines(file_of(exported, name), ELEMENTS)
    cases = structures(potential.cutoff)
    for case in cases if ranks == 1 else ("triclinic", "one atom, cell smaller than the cutoff", "slab", "many"):
        found = single_point(cases[case], lines, ELEMENTS, tmp_path, program=lmp, ranks=ranks)
        right = expected(potential, cases[case])
        if case == "many":
            assert np.abs(right.forces).max() > 0.5  # eV/Å: otherwise tolerances mean nothing
        check(found, right, cases[case])


@pytest.mark.parametrize("ranks", [1, 2])
def test_pair_style_in_float32(ranks: int, lmp: Path, exported: Path, tmp_path: Path) -> None:
    atoms = structures(5.0)["many"]
    lines = potential_lines(file_of(exported, "torchmd_net", "float32"), ELEMENTS)
    found = single_point(atoms, lines, ELEMENTS, tmp_path, program=lmp, ranks=ranks)
    right = expected(in_precision(potential_named("torchmd_net"), "float32"), atoms)
    check(found, right, atoms, "float32")
    exact = expected(potential_named("torchmd_net"), atoms)
    assert np.abs(found.forces - exact.forces).max() > 1e-9  # it is float32 that ran


def test_a_package(lmp: Path, tmp_path: Path) -> None:
    potential = network("cgcnn")
    write_export(potential, tmp_path / "model.pt2", "pt2")
    atoms = structures(5.0)["many"]
    for ranks in (1, 2):
        lines = potential_lines(tmp_path / "model.pt2", ELEMENTS)
        found = single_point(atoms, lines, ELEMENTS, tmp_path, program=lmp, ranks=ranks)
        check(found, expected(potential, atoms), atoms)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["eam", "cgcnn", "m3gnet", "torchmd_net"])
def test_mliap(name: str, mliap: Path, tmp_path: Path) -> None:
    potential = potential_named(name)
    written = write_mliap(tmp_path / "model.mliap", potential)
    lines = potential_lines(tmp_path / "model.mliap", ELEMENTS, written.halo)
    cases = structures(potential.cutoff)
    for case, ranks in (("triclinic", 1), ("one atom, cell smaller than the cutoff", 1), ("slab", 2), ("many", 2)):
        found = single_point(cases[case], lines, ELEMENTS, tmp_path, program=mliap, ranks=ranks)
        check(found, expected(potential, cases[case]), cases[case])


def test_rounding_grows_with_forces() -> None:
    limit = TOLERANCES["float32"]
    for largest, forces, passed in ((0.5, 9e-5, True), (0.5, 2e-4, False), (450.0, 2e-4, True), (450.0, 0.05, False)):
        found = Comparison("hot", 10, "", 1, energy=1e-6, forces=forces, pressure=1.0, largest=largest)
        assert found.within(limit) is passed


@pytest.mark.parametrize("fault", ["energy", "forces", "stress", None])
def test_every_quantity_is_compared(
    fault: str | None, lmp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_potential(tmp_path / "model.pt", network("cgcnn"))
    comparing = Parity(tmp_path / "model.pt", tmp_path, program=lmp, only=["external"])
    atoms = STRUCTURES["quartz"]
    right = expected(network("cgcnn"), atoms)
    largest = float(np.abs(right.forces).max())
    limit, scale = comparing.tolerance, max(1.0, largest)
    by = {"energy": limit.energy * len(atoms), "forces": limit.forces, "stress": limit.pressure / BAR}
    wrong = right if fault is None else replace(right, **{fault: getattr(right, fault) + 2 * scale * by[fault]})
    monkeypatch.setattr(comparing, "_compute", lambda *_: wrong)
    (found,) = comparing.compare({"quartz": atoms}, [1])
    assert found.within(limit) is (fault is None)
    assert found.largest == pytest.approx(largest)


def test_the_comparison_itself(plugin: Path, lmp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert plugin.is_dir()
    save_potential(tmp_path / "model.pt", network("cgcnn"))
    options = {"program": lmp, "only": [".ts.pt", "external"]}
    comparing = Parity(tmp_path / "model.pt", tmp_path, **options)  # type: ignore[arg-type]
    assert comparing.routes == [parity.PLUGIN_TORCHSCRIPT, doctor.EXTERNAL]
    assert comparing.missing == []
    with pytest.raises(InputError, match=r"no way into LAMMPS is left.*known: pretrain_mlip \.ts\.pt"):
        Parity(tmp_path / "model.pt", tmp_path, program=lmp, only=["mliap"])
    wire = {"wire": STRUCTURES["wire"].copy()}
    wire["wire"].set_constraint(FixAtoms([0]))  # of no account for energies and forces
    found = list(comparing.compare(wire, [1, 2]))
    assert [(each.route, each.ranks) for each in found] == [
        (parity.PLUGIN_TORCHSCRIPT, 1),
        (parity.PLUGIN_TORCHSCRIPT, 2),
        (doctor.EXTERNAL, 1),
    ]
    assert all(each.within(comparing.tolerance) for each in found)

    comparing._files[parity.PLUGIN_TORCHSCRIPT] = tmp_path / "other.ts.pt"  # of other weights
    write_export(network("cgcnn", seed=4), tmp_path / "other.ts.pt", "torchscript")
    first, *_ = comparing.compare(wire, [1])
    assert not first.within(comparing.tolerance)
    assert not first.error
    (tmp_path / "other.ts.pt").write_bytes(b"damaged")
    first, *_ = comparing.compare(wire, [1])
    assert not first.within(comparing.tolerance)
    assert "cannot read" in first.error
    monkeypatch.setattr(
        doctor,
        "try_routes",
        lambda *_: [
            doctor.Route(name, works=False) for name in ("eam/alloy", "eam/fs", "pretrain_mlip", "mliap", doctor.RANKS)
        ],
    )
    monkeypatch.setattr(doctor, "try_session", lambda: doctor.Route(doctor.EXTERNAL, works=False))
    with pytest.raises(InputError, match="no way into LAMMPS is left"):
        Parity(tmp_path / "model.pt", tmp_path, **options)  # type: ignore[arg-type]
