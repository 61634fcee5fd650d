"""Writing setfl tables: what is in them, what an independent reader (ASE's) makes of them, what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators import eam as ase_eam
from tests.conftest import STRUCTURES, hard_eam
from tests.eam_structures import random_eam

from pretrain_mlip import EAM
from pretrain_mlip.calculators.batched import predict
from pretrain_mlip.errors import InputError
from pretrain_mlip.potentials.eam.setfl import STEP_RHO, as_tables
from pretrain_mlip.structures.neighbors import find_pairs


@pytest.mark.parametrize("form", ["alloy", "fs"])
@pytest.mark.parametrize("name", ["quartz", "triclinic", "molecule without a cell"])
@pytest.mark.parametrize("include_e0", [False, True])
def test_ase_reads_equal_energies(form: str, name: str, include_e0: bool, tmp_path: Path) -> None:
    eam, atoms = hard_eam(form), STRUCTURES[name].copy()
    path = tmp_path / f"eam.eam.{form}"
    eam.write_setfl(path, include_e0=include_e0)
    (ours,) = predict(eam, [atoms])
    assert ours.energy is not None
    if atoms.cell.rank == 0:
        atoms.center(vacuum=10.0)  # ASE's neighbour list wants a cell
    atoms.calc = ase_eam.EAM(potential=str(path))
    e0 = 0.0 if include_e0 else sum(eam.reference_energies()[symbol] for symbol in atoms.symbols)
    # no pair of these lies at a joint of the functions, where codes differ more (test_eam_oracles.py)
    assert atoms.get_potential_energy() == pytest.approx(ours.energy - e0, abs=1e-9)
    assert atoms.get_forces() == pytest.approx(ours.forces, abs=1e-6)


def test_layout(tmp_path: Path) -> None:
    eam = hard_eam()
    eam.report["data_hash"] = "0123"
    eam.write_setfl(tmp_path / "a.eam.alloy", points_r=500, points_rho=600)
    lines = (tmp_path / "a.eam.alloy").read_text().splitlines()
    assert "units metal" in lines[0]
    assert "0123" in lines[1]
    assert "O -430" in lines[2]
    assert "NOT included" in lines[2]
    assert lines[3].split() == ["2", "O", "Si"]
    rho_points, rho_step, points, step, cutoff = lines[4].split()
    assert (int(rho_points), int(points), float(cutoff)) == (600, 500, 6.0)
    assert float(step) == 6.0 / 499
    numbers = [float(word) for line in lines[6:] for word in line.split() if word not in ("diamond", "fcc", "none")]
    assert all(map(torch.isfinite, torch.tensor(numbers)))
    # well beyond the density of a dimer at 0.5 Å
    nearest = float(eam.density(1, 1, torch.tensor([0.5], dtype=torch.float64))[0])
    assert float(rho_step) * 599 > 10 * nearest


@pytest.mark.parametrize("spread", [0.2, 0.6])
def test_embedding_tables_at_the_densities_of_structures(spread: float) -> None:
    eam = random_eam(["O", "Si"], "alloy", seed=1, spread=spread)
    tables = as_tables(eam)
    assert tables.step_rho <= STEP_RHO
    for atoms in STRUCTURES.values():
        types, density = densities(eam, atoms)
        value, slope = eam.embedding(types, density)
        tabulated, tabulated_slope = tables.embedding(types, density)
        k1 = eam.log_root.exp()[types]
        nearly_alone = density < 2 * STEP_RHO
        # fourth derivatives of F are at most 33600 k1, at zero density: h⁴/384 of that is 5e-12 k1, and slopes by
        # differences are good to h⁴/30 of the fifth, 1.6e6 k1
        assert ((tabulated - value).abs() < torch.where(nearly_alone, 1e-6, 1e-10) * k1).all()
        assert ((tabulated_slope - slope).abs() < torch.where(nearly_alone, 1e-2, 1e-6) * k1).all()


def densities(eam: EAM, atoms: Atoms) -> tuple[torch.Tensor, torch.Tensor]:
    """Types and densities by a plain sum over the analytic functions."""
    types = torch.tensor([eam.elements.index(symbol) for symbol in atoms.symbols])
    total = torch.zeros(len(atoms), dtype=torch.float64)
    for i, j, distance in zip(*find_pairs("ijd", atoms, eam.cutoff), strict=True):
        total[i] += eam.density(int(types[j]), int(types[i]), torch.tensor([distance], dtype=torch.float64))[0][0]
    return types, total


def test_densities_reach_beyond_any_simulation_yet_tables_stay_small() -> None:
    packed = as_tables(random_eam(["O", "Si"], "fs", seed=1))
    atoms = bulk("Si", "fcc", a=0.72 * 2**0.5 * packed.covalent_sum(1, 1))
    assert densities(random_eam(["O", "Si"], "fs", seed=1), atoms)[1].max() < packed.step_rho * (packed.points_rho - 1)
    wild = as_tables(random_eam(["O", "Si"], "alloy", seed=2, spread=1.0))  # would reach beyond 1e4
    assert wild.points_rho <= 200_001
    assert wild.step_rho <= STEP_RHO


def test_options(tmp_path: Path) -> None:
    eam, path = hard_eam(), tmp_path / "a.eam.alloy"
    eam.write_setfl(path, points_r=777, points_rho=888, include_e0=True)
    tables = EAM.from_setfl(path)
    assert (tables.points_r, tables.points_rho) == (777, 888)
    assert tables.embedding_table[:, 0].tolist() == [-430.0, -105.0]
    assert tables.reference_energies() == {"O": 0.0, "Si": 0.0}
    assert "included in" in tables.report["comments"][2]
    assert "NOT" not in tables.report["comments"][2]


@pytest.mark.parametrize("name", ["a.eam.fs", "a.eam", "a.json", "a.pt", "alloy", "a.txt"])
def test_refuses_a_misleading_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"form 'alloy'.*name the file \*.eam.alloy"):
        hard_eam().write_setfl(tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [({"points_r": 10}, "too coarse"), ({"points_rho": 99}, "too coarse"), ({"points_r": 10**7}, "too large")],
)
def test_refuses_sizes(options: dict[str, int], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        hard_eam().write_setfl(tmp_path / "a.eam.alloy", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("linear", math.inf, "embedding function is not finite"), ("log_amplitude", math.nan, "density is zero or not")],
)
def test_refuses_functions_that_are_not_finite(name: str, value: float, message: str, tmp_path: Path) -> None:
    eam = hard_eam()
    getattr(eam, name)[0] = value
    with pytest.raises(InputError, match=message):
        eam.write_setfl(tmp_path / "a.eam.alloy")
    assert not list(tmp_path.iterdir())


def test_refuses_tables_that_others_would_misread(tmp_path: Path) -> None:
    for change, message in (
        (lambda tables: tables.density_table[0, 3].fill_(-1e-3), "negative"),
        (lambda tables: tables.pair_table[0, 3].fill_(math.nan), "pair function is not finite"),
        (lambda tables: setattr(tables, "cutoff", 6.1), "end at .* before the cutoff"),
    ):
        tables = as_tables(hard_eam(), 500, 500)
        change(tables)
        with pytest.raises(InputError, match=message):
            tables.write_setfl(tmp_path / "a.eam.alloy")
    assert not list(tmp_path.iterdir())
