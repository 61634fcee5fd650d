"""setfl tables against an independent reader, ASE's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ase.calculators import eam as ase_eam
from tests.conftest import STRUCTURES, hard_eam

from pretrain_mlip.calculators.batched import predict
from pretrain_mlip.errors import InputError


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
    # 4000 points in r: the cubic interpolation of ASE is good to 1e-9 eV/atom and 1e-6 eV/Å
    assert atoms.get_potential_energy() == pytest.approx(ours.energy - e0, abs=1e-7)
    assert atoms.get_forces() == pytest.approx(ours.forces, abs=2e-5)


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
    # beyond the density of a dimer at 0.5 Å, the densest environment that a simulation might meet
    nearest = float(eam.density(1, 1, torch.tensor([0.5], dtype=torch.float64))[0])
    assert float(rho_step) * 599 > 10 * nearest


def test_refuses_a_misleading_name_and_coarse_tables(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="form 'alloy'"):
        hard_eam().write_setfl(tmp_path / "a.eam.fs")
    with pytest.raises(InputError, match="too coarse"):
        hard_eam().write_setfl(tmp_path / "a.eam.alloy", points_r=10)
    assert not list(tmp_path.iterdir())


def test_refuses_tables_that_are_not_finite(tmp_path: Path) -> None:
    eam = hard_eam()
    eam.linear[0] = float("inf")
    with pytest.raises(InputError, match="not finite"):
        eam.write_setfl(tmp_path / "a.eam.alloy")
    assert not list(tmp_path.iterdir())
