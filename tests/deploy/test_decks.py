"""Every input deck runs, by every way there is, and what it measures is what is published or known."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from tests.conftest import ELEMENTS, STRUCTURES, hard_eam
from tests.export_potentials import network, potential_named
from tests.lammps_oracle import published

from pretrain_mlip import PretrainedMLIP
from pretrain_mlip.deploy.exports import write_export
from pretrain_mlip.deploy.lammps.decks import DECKS, write_deck
from pretrain_mlip.deploy.lammps.mliap import write_mliap
from pretrain_mlip.deploy.lammps.runs import find_program, run_lammps, style_of, write_structure
from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.potentials.eam.setfl import write_setfl

PARTS = ("start", "watch", "output")
NAMES = sorted(path.stem for path in DECKS.glob("*.in") if path.stem not in PARTS)


def run(name: str, folder: Path, lmp: Path, model: Path, **variables: object) -> str:
    given = {"decks": DECKS, "model": model, "style": style_of(model), "elements": " ".join(ELEMENTS)}
    given |= {"structure": "start.data", "steps": 20, "save": 10, "every": 10, **variables}
    return run_lammps(DECKS / f"{name}.in", folder, program=lmp, variables=given, ranks=2)


@pytest.mark.parametrize("style", ["eam/alloy", "pretrain_mlip", "mliap"])
@pytest.mark.parametrize("name", NAMES)
def test_runs(name: str, style: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    halo = 0.0
    if style == "eam/alloy":
        lmp, model = find_program(), tmp_path / "model.eam.alloy"
        write_setfl(hard_eam(), model)
    elif style == "mliap":
        lmp, model = request.getfixturevalue("mliap"), tmp_path / "model.mliap"
        halo = write_mliap(model, network("cgcnn", convolutions=1)).halo
    else:
        lmp, model = request.getfixturevalue("lmp"), tmp_path / "model.ts.pt"
        write_export(potential_named("cgcnn"), model, "torchscript")
    write_structure(tmp_path / "start.data", STRUCTURES["triclinic"] * (2, 2, 1), ELEMENTS)
    extra = {
        "ramp": {"volume_factor": 0.9, "save_checked": "yes"},
        "eos": {"points": 3},
        "npt": {"cell": "tri"},
        "minimize": {"cell": "tri"},
    }.get(name, {})
    output = run(name, tmp_path, lmp, model, halo=halo, limit=1e9, fall=1e9, **extra)
    assert "Total wall time" in output
    assert "Fix halt" not in output
    left = {"rdf": "rdf.txt", "minimize": "relaxed.data", "eos": "eos.txt", "elastic": "elastic.txt"}
    assert (tmp_path / left.get(name, "trajectory.dump")).stat().st_size > 0


def copper(folder: Path) -> tuple[Path, dict[str, object]]:
    table = published("Cu_mishin1.eam.alloy")
    write_structure(folder / "start.data", bulk("Cu", "fcc", a=3.615, cubic=True) * (2, 2, 2), ["Cu"])
    return table, {"elements": "Cu"}


def test_elastic_constants_of_copper(tmp_path: Path) -> None:
    """Mishin et al., Phys. Rev. B 63, 224106 (2001): 169.9, 122.6 and 76.2 GPa."""
    table, variables = copper(tmp_path)
    run("elastic", tmp_path, find_program(), table, **variables)
    found = np.loadtxt(tmp_path / "elastic.txt")
    right = np.zeros((6, 6))
    right[:3, :3] = 122.6
    right[range(3), range(3)] = 169.9
    right[range(3, 6), range(3, 6)] = 76.2
    assert found == pytest.approx(right, abs=0.6)


def test_equation_of_state_of_copper(tmp_path: Path) -> None:
    """The same paper: -3.54 eV, 3.615 Å, bulk modulus 138.3 GPa; and the same crystal in a skewed cell."""
    table, variables = copper(tmp_path)
    measured = []
    for cubic in (True, False):
        write_structure(tmp_path / "start.data", bulk("Cu", "fcc", a=3.615, cubic=cubic) * (3, 3, 3), ["Cu"])
        run("eos", tmp_path, find_program(), table, strain=0.01, points=5, **variables)
        measured.append(np.loadtxt(tmp_path / "eos.txt"))
    volume, energy, pressure = measured[0].T
    assert volume[2] == pytest.approx(3.615**3 / 4, rel=1e-6)
    assert energy[2] == pytest.approx(-3.54, abs=2e-3)
    assert energy.argmin() == 2
    modulus = -volume[2] * (pressure[3] - pressure[1]) / (volume[3] - volume[1])
    assert modulus == pytest.approx(138.3, rel=0.01)
    slopes = np.gradient(energy, volume) * 160.21766  # the pressure is the derivative of the energy
    assert slopes[1:4] == pytest.approx(-pressure[1:4], abs=0.2)
    assert measured[1] == pytest.approx(measured[0], abs=1e-5)  # eV and GPa; a shear of 1 % costs 1e-4 eV


def test_structures_relax_and_are_read_back(tmp_path: Path) -> None:
    table, variables = copper(tmp_path)
    start = bulk("Cu", "fcc", a=3.7, cubic=True) * (2, 2, 2)
    start.rattle(0.05, seed=1)
    write_structure(tmp_path / "start.data", start, ["Cu"])
    run("minimize", tmp_path, find_program(), table, cell="tri", force=1e-6, **variables)
    end = ase.io.read(tmp_path / "relaxed.data", format="lammps-data", units="metal", atom_style="atomic")
    assert isinstance(end, Atoms)
    assert end.cell.volume / len(end) == pytest.approx(3.615**3 / 4, rel=1e-3)


def test_a_run_that_fails_stops(lmp: Path, tmp_path: Path) -> None:
    write_export(network("cgcnn"), tmp_path / "model.ts.pt", "torchscript")
    write_structure(tmp_path / "start.data", STRUCTURES["quartz"] * (2, 2, 2), ELEMENTS)
    model = tmp_path / "model.ts.pt"
    for watch, what in ((("closest", 1.5), "distance"), (("limit", 310), "temperature"), (("fall", 0.001), "fall")):
        others = {"closest": 0.0, "limit": 1e9, "fall": 1e9} | dict([watch])
        output = run("ramp", tmp_path, lmp, model, end_temperature=6000, steps=2000, check=1, **others)
        stopped = re.search(r"Fix halt condition for fix-id watched_(\w+) met on step (\d+)", output)
        assert stopped is not None
        assert stopped.group(1) == what
        assert int(stopped.group(2)) < 2000
        assert "Total wall time" in output


def test_decks_that_go_with_exports(lmp: Path, tmp_path: Path) -> None:
    atoms = STRUCTURES["slab"]
    write_export(network("m3gnet"), tmp_path / "a" / "silica.ts.pt", "torchscript")
    write_setfl(hard_eam("fs"), tmp_path / "a" / "metal.eam.fs")
    for model in ("silica.ts.pt", "metal.eam.fs"):
        deck = write_deck(tmp_path / "a" / model, atoms, ELEMENTS, cutoff=6.0)
        short = deck.read_text().replace("run 1000", "run 5")
        assert short != deck.read_text()
        deck.write_text(short)
    shutil.move(tmp_path / "a", tmp_path / "b")  # its files belong together, wherever they are
    for deck in ("silica.in", "metal.in"):
        assert "Total wall time" in run_lammps(deck, tmp_path / "b", program=lmp)
    with pytest.raises(InputError, match="not Ge of the structure"):
        write_deck(tmp_path / "b" / "silica.ts.pt", Atoms("GeO"), ELEMENTS, cutoff=6.0)
    with pytest.raises(InputError, match="no atoms"):
        write_deck(tmp_path / "b" / "silica.ts.pt", Atoms(), ELEMENTS, cutoff=6.0)


def test_mliap_takes_no_more_atoms_than_its_memory_allows(mliap: Path, tmp_path: Path) -> None:
    halo = write_mliap(tmp_path / "model.mliap", network("cgcnn", convolutions=1)).halo
    many = STRUCTURES["quartz"] * (11, 11, 10)
    deck = write_deck(tmp_path / "model.mliap", many, ELEMENTS, cutoff=4.5, halo=halo)
    with pytest.raises(ComputationError, match="more than 10000 atoms in a process"):
        run_lammps(deck.name, tmp_path, program=mliap)


def test_velocities_and_energies_of_a_trajectory(lmp: Path, tmp_path: Path) -> None:
    write_export(potential_named("cgcnn"), tmp_path / "model.ts.pt", "torchscript")
    prism = write_structure(tmp_path / "start.data", STRUCTURES["triclinic"] * (2, 2, 1), ELEMENTS)
    run("ramp", tmp_path, lmp, tmp_path / "model.ts.pt", limit=1e9, fall=1e9, numbers="%.14g")
    dump = tmp_path / "trajectory.dump"
    frames = ase.io.read(dump, index=":", format="lammps-dump-text", prismobj=prism, units="metal")
    assert [frame.info["timestep"] for frame in frames] == [0, 10, 20]  # each once
    for frame in frames:
        again = frame.copy()
        again.calc = PretrainedMLIP(potential_named("cgcnn"))
        assert np.abs(again.get_forces() - frame.get_forces()).max() < 1e-9  # of the potential, not of the thermostat
