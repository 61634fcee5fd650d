"""Sound potentials pass; each way of being broken is found by the check that is there for it."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from tests.conftest import ELEMENTS, hard_eam, lively

from pretrain_mlip import PretrainedMLIP, build_model
from pretrain_mlip.deploy.exports import write_export
from pretrain_mlip.errors import InputError
from pretrain_mlip.potentials.base import ReferenceEnergies
from pretrain_mlip.potentials.networks import available_models
from pretrain_mlip.validation.verification.subject import Finding, Subject, deviation, graded, judged
from pretrain_mlip.validation.verification.verify import CHECKS, MANDATORY, passed, verify

QUICK = [check.name for check in CHECKS if check.name != "memory-leak"]
SMALL = {"cgcnn": {"convolutions": 2}, "m3gnet": {"blocks": 1}, "torchmd_net": {"layers": 2}}


def of(make: Callable[[], Any], elements: tuple[str, ...] = ("Au", "Cu"), **options: Any) -> Subject:
    return Subject(make, elements, **options)


def grades(subject: Subject, *names: str) -> dict[str, str]:
    return {name: row["grade"] for name, row in verify(subject, names or QUICK).items()}


def test_an_eam_passes_everything_with_the_best_grades() -> None:
    potential = hard_eam()
    found = grades(of(lambda: PretrainedMLIP(potential), tuple(potential.elements)))
    assert found.pop("forces-numerical-derivative") == "A"
    assert found.pop("stress-numerical-derivative") == "A"
    assert set(found.values()) == {"P"}


@pytest.mark.slow
@pytest.mark.parametrize("name", available_models())
def test_networks_pass_what_is_mandatory(name: str) -> None:
    network = lively(build_model(name, ELEMENTS, width=16, **SMALL[name]))
    network.set_dtype(torch.float64)
    subject = of(lambda: PretrainedMLIP(network), tuple(ELEMENTS))
    results = verify(subject, [check.name for check in CHECKS if check.category == MANDATORY])
    assert passed(results)
    assert {row["grade"] for row in results.values()} == {"A", "P"}


def test_what_single_precision_costs_is_told_and_does_not_fail() -> None:
    network = lively(build_model("cgcnn", ELEMENTS, width=16, convolutions=2))
    network.set_dtype(torch.float32)
    found = grades(of(lambda: PretrainedMLIP(network), tuple(ELEMENTS), dtype="float32"))
    assert found["forces-numerical-derivative"] in "BCD"  # differences of energies with seven digits
    assert found["single-precision"] == "-"
    assert "F" not in found.values()
    network.set_dtype(torch.float64)
    (row,) = verify(of(lambda: PretrainedMLIP(network), tuple(ELEMENTS)), ["single-precision"]).values()
    assert 1e-9 < row["error"] < 1e-4
    assert "meV/atom" in row["detail"]


def test_emt_ends_abruptly_and_is_sound_otherwise() -> None:
    """ASE's EMT has no smooth cutoff, as its documentation says."""
    results = verify(of(EMT), QUICK)
    assert passed(results)
    assert [name for name, row in results.items() if row["grade"] == "F"] == ["dimer-continuity-c1"]
    assert "eV/Å of" in results["dimer-continuity-c1"]["detail"]


def test_a_truncated_lennard_jones_has_a_step_where_it_ends() -> None:
    results = verify(of(lambda: LennardJones(sigma=2.3, epsilon=0.4, rc=5.0), ("Cu",)), ["dimer-continuity-c1"])
    assert results["dimer-continuity-c1"]["grade"] == "F"
    assert "of Cu-Cu at 4.9" in results["dimer-continuity-c1"]["detail"]
    smooth = verify(
        of(lambda: LennardJones(sigma=2.3, epsilon=0.4, rc=5.0, ro=3.5, smooth=True), ("Cu",)), ["dimer-continuity-c1"]
    )
    assert smooth["dimer-continuity-c1"]["grade"] == "P"


class Broken(Calculator):
    """EMT with something added; forces and stress stay EMT's unless they are changed too."""

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012

    def __init__(self, change: Callable[[Atoms, dict[str, Any]], None], inner: type = EMT) -> None:
        super().__init__()
        self.change, self.inner = change, inner()

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        copy = atoms.copy()
        copy.calc = self.inner
        self.results = {"energy": copy.get_potential_energy(), "forces": copy.get_forces()}
        if copy.pbc.all():
            self.results["stress"] = copy.get_stress()
        self.change(atoms, self.results)


def add(**terms: Callable[[Atoms], Any]) -> Callable[[Atoms, dict[str, Any]], None]:
    def change(atoms: Atoms, results: dict[str, Any]) -> None:
        for name, term in terms.items():
            if name in results:
                results[name] = results[name] + term(atoms)

    return change


def scale(**factors: float) -> Callable[[Atoms, dict[str, Any]], None]:
    def change(_: Atoms, results: dict[str, Any]) -> None:
        for name, factor in factors.items():
            if name in results:
                results[name] = results[name] * factor

    return change


def chirality(atoms: Atoms) -> float:
    first, second, third = (atoms.positions[index] - atoms.positions[0] for index in (1, 2, 3))
    return 1e-3 * float(np.cross(first, second) @ third)


def inside(atoms: Atoms) -> float:
    return float((atoms.get_scaled_positions(wrap=False)[:, 0] > 1).sum()) if atoms.pbc.any() else 0.0


def noise(atoms: Atoms, results: dict[str, Any]) -> None:
    """Forces off by a sixth of their size, some more, some less."""
    rng = np.random.default_rng(len(atoms))
    results["forces"] = results["forces"] + rng.normal(scale=results["forces"].std() / 6, size=results["forces"].shape)


BROKEN: dict[str, tuple[Callable[[Atoms, dict[str, Any]], None], set[str]]] = {
    "forces a little too large": (scale(forces=1.0005), {"forces-numerical-derivative:C"}),
    "forces two per cent too large": (scale(forces=1.02), {"unit-conversion:F"}),
    "forces with noise": (noise, {"forces-numerical-derivative:D", "unit-conversion:P"}),
    "forces of another sign": (scale(forces=-1.0), {"forces-numerical-derivative:F", "unit-conversion:F"}),
    "stress in GPa": (scale(stress=1 / units.GPa), {"stress-numerical-derivative:F", "unit-conversion:F"}),
    "a pressure": (scale(stress=-1.0), {"stress-numerical-derivative:F", "unit-conversion:F"}),
    "atoms that count by their number": (
        add(energy=lambda a: 1e-5 * float(a.numbers @ np.arange(len(a)))),
        {"permutation-symmetry:F", "extensivity:F"},
    ),
    "a box that counts": (add(energy=inside), {"periodicity-support:F"}),
    "a direction in space": (
        add(energy=lambda a: float(np.ptp(a.positions[:, 2])), forces=lambda _: 0.0),
        {"objectivity:F", "periodicity-support:F", "extensivity:F"},
    ),
    "a hand": (add(energy=chirality), {"inversion-symmetry:F"}),
    "a constant": (add(energy=lambda _: 1.0), {"extensivity:F"}),
    "no numbers": (add(forces=lambda _: np.nan), {"species-supported-as-stated:F"}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_in_one_way(name: str) -> None:
    change, expected = BROKEN[name]
    names = [entry.split(":")[0] for entry in expected]
    assert {f"{check}:{grade}" for check, grade in grades(of(lambda: Broken(change)), *names).items()} == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (scale(stress=1 / units.GPa), "stress are 160.2 times the derivative of the energy: GPa?"),
        (scale(forces=-1.0), "forces are -1 times the derivative of the energy: the sign?"),
        (scale(energy=units.mol / units.kcal), "forces are 0.04336 times"),
        (scale(forces=units.Bohr / units.Hartree), "Hartree/Bohr?"),
    ],
)
def test_units_are_guessed(change: Any, message: str) -> None:
    (row,) = verify(of(lambda: Broken(change)), ["unit-conversion"]).values()
    assert message in row["detail"]


def test_an_element_that_is_only_claimed() -> None:
    (row,) = verify(of(EMT, ("Cu", "Fe")), ["species-supported-as-stated"]).values()
    assert row["grade"] == "F"
    assert "Fe: NotImplementedError" in row["detail"]
    assert not passed({"species-supported-as-stated": row})


def test_state_that_threads_share() -> None:
    shared: dict[str, Any] = {}

    def change(_: Atoms, results: dict[str, Any]) -> None:
        shared["energy"] = results["energy"]
        time.sleep(0.002)
        results["energy"] = shared["energy"]

    assert grades(of(lambda: Broken(change)), "thread-safe") == {"thread-safe": "F"}
    assert grades(of(EMT), "thread-safe") == {"thread-safe": "P"}


def test_a_calculator_that_only_one_thread_can_make_may_compute_in_several() -> None:
    def make() -> EMT:
        assert threading.current_thread() is threading.main_thread(), "as of a library that compiles code"
        return EMT()

    assert grades(of(make), "thread-safe") == {"thread-safe": "P"}


LEAK = """
import numpy as np
from ase.calculators.emt import EMT
from pretrain_mlip import keep_memory
from pretrain_mlip.validation.verification import programs
from pretrain_mlip.validation.verification.subject import Subject
keep_memory()
np.full(40_000_000, 1.0)  # 320 MB that are freed, and kept: leaks come out of them first
programs.CALLS, programs.WARM_UP = 100, 20
kept = []
class Leaky(EMT):
    def calculate(self, *args):
        super().calculate(*args)
        kept.append(np.full(50_000, 1.0))  # 0.4 MB
print(programs.check_memory(Subject(EMT, ["Cu"])).grade, programs.check_memory(Subject(Leaky, ["Cu"])).grade)
"""


def test_memory_that_is_never_given_back() -> None:
    found = subprocess.run([sys.executable, "-c", LEAK], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["P", "F"]


@pytest.mark.parametrize("periodic", [True, False])
def test_the_users_structure_is_checked_whatever_it_is(periodic: bool) -> None:
    def change(atoms: Atoms, results: dict[str, Any]) -> None:
        if len(atoms) == 3:
            results["forces"] = 1.5 * results["forces"]

    own = bulk("Cu") * (3, 1, 1)
    own.rattle(0.1, seed=1)
    own.pbc = periodic
    (row,) = verify(of(lambda: Broken(change), ("Cu",), structure=own), ["forces-numerical-derivative"]).values()
    assert row["grade"] == "F"
    assert "largest for given" in row["detail"]


def test_what_is_not_finite_has_failed() -> None:
    """Wherever it stands: before a sound structure, in one number of the stress, in energies of batches."""

    def in_the_first(atoms: Atoms, results: dict[str, Any]) -> None:
        if len(atoms) != 3 and "stress" in results:
            results["stress"][2] = np.nan

    own = bulk("Cu") * (3, 1, 1)
    own.rattle(0.1, seed=1)
    names = ["stress-numerical-derivative", "unit-conversion"]
    results = verify(of(lambda: Broken(in_the_first), ("Cu",), structure=own), names)
    assert [(row["grade"], row["error"]) for row in results.values()] == [("F", None), ("F", None)]
    assert deviation((0.0, np.array([[np.nan, 0, 0]])), (0.0, np.zeros((1, 3)))) == np.inf
    assert deviation((np.nan, np.zeros((1, 3))), (0.0, np.zeros((1, 3)))) == np.inf
    assert judged(np.inf, 1.0, "").grade == judged(np.nan, 1.0, "").grade == "F"


def test_a_calculator_without_a_stress_and_one_whose_stress_fails() -> None:
    class Without(Broken):
        implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def raises(_: Atoms, results: dict[str, Any]) -> None:
        if "stress" in results:
            raise RuntimeError("no stress today")

    name = "stress-numerical-derivative"
    assert grades(of(lambda: Without(add())), name, "unit-conversion") == {name: "-", "unit-conversion": "P"}
    assert grades(of(lambda: Broken(raises)), name) == {name: "F"}


def test_a_potential_that_does_nothing_is_sound() -> None:
    """Such as reference energies alone: no force to compare units with."""
    nothing = ReferenceEnergies({"O": -430.0, "Si": -105.0})
    found = grades(of(lambda: PretrainedMLIP(nothing), ("O", "Si")))
    assert found["unit-conversion"] == "-"
    assert "F" not in found.values()


def test_exported_code_is_verified_as_far_as_it_goes(tmp_path: Path) -> None:
    write_export(hard_eam(), tmp_path / "eam.ts.pt", "torchscript")
    found = grades(of(lambda: PretrainedMLIP.load(tmp_path / "eam.ts.pt"), ("O", "Si")))
    assert (found["checkpoint-round-trip"], found["single-precision"], found["batch-consistency"]) == ("-", "-", "P")
    assert "F" not in found.values()


def test_grades_are_those_of_openkim() -> None:
    eps = np.finfo(float).eps
    found = [graded(eps * 10**score, "").grade for score in (0, 7.4, 7.6, 9.9, 10.1, 12.4, 12.6, 14.9, 15.1)]
    assert found == ["A", "A", "B", "B", "C", "C", "D", "D", "F"]
    assert [graded(value, "").grade for value in (0.0, np.inf, np.nan)] == ["A", "F", "F"]
    assert graded(np.nan, "").error is None  # JSON has none


def test_what_cannot_be_verified() -> None:
    with pytest.raises(InputError, match="name the elements"):
        of(EMT, ())
    with pytest.raises(InputError, match="unknown element 'Xx'"):
        of(EMT, ("Cu", "Xx"))
    with pytest.raises(InputError, match="dtype 'float16'"):
        of(EMT, dtype="float16")
    with pytest.raises(InputError, match="no check 'foces'; there are species-supported"):
        verify(of(EMT), ["foces"])


def test_results_are_ready_for_json(tmp_path: Path) -> None:
    from pretrain_mlip.files import read_json, write_json

    results = verify(of(EMT), ["species-supported-as-stated", "extensivity"])
    write_json(tmp_path / "v.json", results)
    assert read_json(tmp_path / "v.json") == results
    assert set(itertools.chain(*results.values())) == {"category", *Finding.__dataclass_fields__}
