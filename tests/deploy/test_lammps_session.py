"""LAMMPS driven from Python, and what it takes to load it beside torch."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.constraints import FixAtoms
from tests.conftest import STRUCTURES
from tests.export_potentials import potential_named
from tests.lammps_oracle import set_in_motion

from pretrain_mlip import PretrainedMLIP
from pretrain_mlip.deploy.lammps import cache, library
from pretrain_mlip.deploy.lammps.runs import launcher
from pretrain_mlip.deploy.lammps.session import LammpsSession
from pretrain_mlip.errors import ComputationError, InputError

pytestmark = pytest.mark.skipif(
    cache.module_library() is None, reason="LAMMPS is not installed (it is part of the extra dev)"
)


def compare(session: LammpsSession, tolerance: float = 1e-9) -> Atoms:
    """What LAMMPS holds now, after a comparison with the calculator."""
    there = session.atoms
    again = there.copy()
    again.calc = PretrainedMLIP(potential_named("cgcnn"))
    assert session.energy == pytest.approx(again.get_potential_energy(), rel=0, abs=tolerance * len(again))
    assert np.abs(there.get_forces() - again.get_forces()).max() < tolerance
    assert np.abs(there.get_stress() - again.get_stress()).max() < tolerance
    pressure = (
        session.engine.get_thermo("press") - session.engine.get_thermo("ke") * 2 / 3 * 1.6021765e6 / again.cell.volume
    )
    assert pressure == pytest.approx(-again.get_stress()[:3].mean() * 1.6021765e6, rel=1e-9, abs=1e-3)
    return there


@pytest.mark.parametrize("name", ["triclinic", "one atom, cell smaller than the cutoff", "slab", "isolated atom"])
def test_the_numbers_are_those_of_the_calculator(name: str) -> None:
    with LammpsSession(potential_named("cgcnn"), STRUCTURES[name]) as session:
        there = compare(session)
    atoms = STRUCTURES[name].copy()
    atoms.calc = PretrainedMLIP(potential_named("cgcnn"))
    assert list(there.symbols) == list(atoms.symbols)
    assert np.abs(there.get_forces() - atoms.get_forces()).max() < 1e-9


BY_TWO = """
from tests.conftest import STRUCTURES
from tests.export_potentials import potential_named
from pretrain_mlip.deploy.lammps.session import LammpsSession
from pretrain_mlip.errors import InputError
try:
    LammpsSession(potential_named("cgcnn"), STRUCTURES["triclinic"])
except InputError as error:
    print(error, flush=True)
"""


def test_several_processes_are_refused() -> None:
    command = [*launcher(Path(sys.executable)), "-n", "2", sys.executable, "-c", BY_TWO]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=Path(__file__).parents[2])
    assert done.stdout.count("runs in one process") == 2, done.stderr


def test_dynamics_in_a_cell_that_changes() -> None:
    atoms = STRUCTURES["triclinic"] * (2, 2, 2)
    set_in_motion(atoms, 300.0)
    with LammpsSession(potential_named("cgcnn"), atoms, skin=0.5) as session:
        assert session.atoms.get_momenta() == pytest.approx(atoms.get_momenta(), rel=1e-6)
        session.commands("thermo_style custom step pe etotal press", "timestep 0.0001", "fix 1 all nve", "run 0")
        before = session.engine.get_thermo("etotal")
        session.commands("run 100")
        assert session.engine.get_thermo("etotal") == pytest.approx(before, rel=0, abs=2e-4 * len(atoms))
        there = compare(session)
        assert np.abs(there.positions - atoms.positions).max() > 0.01
        session.commands("unfix 1", "fix 1 all npt temp 500 500 0.1 tri 0 0 1", "run 40")
        there = compare(session)
        assert np.abs(there.cell.array - atoms.cell.array).max() > 1e-3
        assert there.cell.volume == pytest.approx(session.engine.get_thermo("vol"), rel=1e-12)
        session.commands(
            "compute e all pe/atom", "compute sum all reduce sum c_e", "thermo_style custom pe c_sum", "run 0"
        )
        assert session.engine.extract_compute("sum", 0, 0) == pytest.approx(session.energy, rel=0, abs=1e-9)


def test_results_are_those_of_the_structure_as_it_is() -> None:
    calculator = PretrainedMLIP(potential_named("cgcnn"))
    with LammpsSession(calculator, STRUCTURES["triclinic"]) as session:
        calculator.get_potential_energy(STRUCTURES["quartz"])  # what it holds now is of another structure
        compare(session)
        before = session.atoms
        for line in ("displace_atoms all random 0.1 0.1 0.1 7", "change_box all x scale 1.02 remap"):
            session.commands(line)
            moved = session.atoms
            assert np.abs(moved.get_forces() - before.get_forces()).max() > 1e-3
            again = moved.copy()
            again.calc = PretrainedMLIP(potential_named("cgcnn"))
            assert moved.get_potential_energy() == pytest.approx(again.get_potential_energy(), rel=0, abs=1e-9)
            assert np.abs(moved.get_forces() - again.get_forces()).max() < 1e-9
            before = moved
        session.commands("run 0")
        compare(session)
    with LammpsSession(calculator, STRUCTURES["quartz"]) as session:
        session.commands("change_box all boundary p p f")
        with pytest.raises(InputError, match="have to stay p p p"):
            _ = session.atoms
        with pytest.raises(InputError, match="have to stay p p p"):
            session.commands("run 1")


def test_what_goes_wrong_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no atoms"):
        LammpsSession(potential_named("cgcnn"), Atoms(cell=[5, 5, 5], pbc=True))
    with pytest.raises(InputError, match="Ge"):
        LammpsSession(potential_named("cgcnn"), Atoms("Ge", cell=[5, 5, 5], pbc=True))
    held = STRUCTURES["quartz"].copy()
    held.set_constraint(FixAtoms([0]))
    with pytest.raises(InputError, match="does not know the constraints"):
        LammpsSession(potential_named("cgcnn"), held)
    with pytest.raises(InputError, match="its own skin"):
        LammpsSession(PretrainedMLIP(potential_named("cgcnn")), STRUCTURES["quartz"], dtype="float32")
    with LammpsSession(potential_named("cgcnn"), STRUCTURES["quartz"]) as session:
        with pytest.raises(ComputationError, match=r"'no_such_command': .*Unknown command"):
            session.commands("no_such_command")
        monkeypatch.setattr(PretrainedMLIP, "calculate", fail)
        with pytest.raises(InputError, match="on purpose"):
            session.commands("fix 1 all nve", "run 10")
        assert session.engine.extract_global("ntimestep") <= 2
        monkeypatch.setattr(PretrainedMLIP, "calculate", interrupt)
        with pytest.raises(KeyboardInterrupt):
            session.commands("run 10")


def fail(*_: object) -> None:
    raise InputError("on purpose")


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


IMPORTS = """
import sys
from pretrain_mlip.deploy.lammps.library import import_lammps
for what in sys.argv[1].split():
    if what == "torch":
        import torch
    elif what == "mpi4py":
        import mpi4py.MPI
    elif what == "lammps":
        import lammps
    elif what == "instance":
        import mpi4py.MPI, lammps
        lammps.lammps(cmdargs=["-log", "none", "-screen", "none"])
module = import_lammps()
engine = module.lammps(cmdargs=["-log", "none", "-screen", "none"])
import torch
x = torch.rand(300, 300, dtype=torch.float64)
assert torch.allclose(x @ x, torch.einsum("ij,jk->ik", x, x))
print(engine.version())
"""


@pytest.mark.parametrize("before", ["", "torch", "lammps", "mpi4py lammps", "instance", "torch instance"])
def test_importing_it_works_whatever_came_before(before: str, tmp_path: Path) -> None:
    """LAMMPS exports a slow dgemm_, which torch must not take for its own: the dynamic linker says what it did."""
    environment = os.environ | {"LD_DEBUG": "bindings", "LD_DEBUG_OUTPUT": str(tmp_path / "linker")}
    command = [sys.executable, "-c", IMPORTS, before]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20200000
    bindings = [
        line
        for path in tmp_path.glob("linker*")
        for line in path.read_text(errors="replace").splitlines()
        if "libtorch" in line.partition(" to ")[0] and "liblammps" in line.partition(" to ")[2]
    ]
    assert [line for line in bindings if "gemm" in line] == []


def test_a_folder_of_that_name_is_no_lammps(tmp_path: Path) -> None:
    (tmp_path / "lammps").mkdir()
    code = "from pretrain_mlip.deploy.lammps.library import import_lammps; import_lammps()"
    hide = f"import sys; sys.path = [{str(tmp_path)!r}] + [p for p in sys.path]; sys.modules.pop('lammps', None)\n"
    finder = (
        "import importlib.machinery\n"
        "real = importlib.machinery.PathFinder.find_spec\n"
        "def find(name, path=None, target=None):\n"
        f"    return real(name, [{str(tmp_path)!r}] if name == 'lammps' else path, target)\n"
        "importlib.machinery.PathFinder.find_spec = staticmethod(find)\n"
    )
    done = subprocess.run([sys.executable, "-c", hide + finder + code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "LAMMPS is not installed" in done.stderr.splitlines()[-1]
    assert "pip install 'pretrain-mlip[lammps]'" in done.stderr.splitlines()[-1]


def test_what_the_library_says() -> None:
    found = library.find_library()
    assert replace(found, version=20250204).version_text == "4 Feb 2025"
    assert found.plugins
    assert found.integers in ("SMALLBIG", "BIGBIG")


def own_energy_agrees(session: LammpsSession) -> None:
    """What ``atoms`` holds is the energy of just that structure."""
    there = session.atoms
    again = there.copy()
    again.calc = PretrainedMLIP(potential_named("cgcnn"))
    assert there.get_potential_energy() == pytest.approx(again.get_potential_energy(), rel=0, abs=1e-9)


def test_elements_cell_and_number_of_atoms_may_change() -> None:
    wrapped = STRUCTURES["triclinic"].copy()
    wrapped.wrap()
    with LammpsSession(potential_named("cgcnn"), wrapped) as session:
        before = session.atoms
        session.commands(f"set atom 1 type {2 if before.symbols[0] == 'O' else 1}")
        assert session.atoms.symbols[0] != before.symbols[0]
        own_energy_agrees(session)
        session.commands("change_box all z final 0 7")  # the cell alone
        assert session.atoms.positions == pytest.approx(before.positions)
        own_energy_agrees(session)
    with LammpsSession(potential_named("cgcnn"), STRUCTURES["triclinic"] * (2, 1, 1)) as session:
        number = len(session.atoms)
        session.commands("group g id 1 5", "delete_atoms group g compress no")
        assert len(session.atoms) == number - 2
        own_energy_agrees(session)
        session.commands("run 0")
        compare(session)


def test_positions_that_leave_the_cell_are_not_folded() -> None:
    with LammpsSession(potential_named("cgcnn"), STRUCTURES["triclinic"]) as session:
        start = session.atoms.positions
        session.commands("displace_atoms all move 0 0 9.5", "run 0")
        assert np.ptp(session.atoms.positions - start, axis=0).max() < 1e-9


def test_it_goes_on_after_a_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Commands after the one at fault are not given, and those of later are whole."""
    written = tmp_path / "never.txt"
    with LammpsSession(potential_named("cgcnn"), STRUCTURES["quartz"]) as session:
        with monkeypatch.context() as patch:
            patch.setattr(PretrainedMLIP, "calculate", fail)
            with pytest.raises(InputError, match="on purpose"):
                session.commands("fix 1 all nve", "run 10", f"print never file {written}")
            step = session.engine.extract_global("ntimestep")
        session.commands("run 10")
        assert session.engine.extract_global("ntimestep") == step + 10
        compare(session)
    assert not written.exists()


def test_lammps_is_closed_where_the_start_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    closed, close = [], LammpsSession.close
    monkeypatch.setattr(LammpsSession, "close", lambda session: (closed.append(session), close(session)))
    monkeypatch.setattr(LammpsSession, "_set_up", lambda *_, **__: interrupt())
    with pytest.raises(KeyboardInterrupt):
        LammpsSession(potential_named("cgcnn"), STRUCTURES["quartz"])
    assert len(closed) == 1
