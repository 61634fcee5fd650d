"""The audit says what a curve is, and whose word it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from tests.conftest import hard_eam
from tests.potentials.test_eam_fit import QUICK, rattled

from pretrain_mlip import EAM, fit_eam
from pretrain_mlip.calculators.batched import label_structures, predict
from pretrain_mlip.potentials.eam.audit import audit, dimer_curve
from pretrain_mlip.potentials.eam.tabulated import TabulatedEAM


@pytest.mark.parametrize("form", ["alloy", "fs"])
def test_dimer_curve_is_that_of_the_potential(form: str) -> None:
    eam = hard_eam(form)
    distances = np.linspace(0.5, 5.9, 50)
    for a, b in eam.pairs:
        symbols = [eam.elements[a], eam.elements[b]]
        found = predict(eam, [Atoms(symbols, positions=[[0, 0, 0], [r, 0, 0]]) for r in distances])
        energy, slope = dimer_curve(eam, a, b, torch.from_numpy(distances))
        e0 = sum(eam.reference_energies()[symbol] for symbol in symbols)
        # the potential interpolates between nodes 0.002 Å apart
        assert energy.numpy() == pytest.approx([labels.energy - e0 for labels in found], abs=1e-6)
        forces = [labels.forces[1, 0] for labels in found if labels.forces is not None]
        assert -slope.numpy() == pytest.approx(forces, abs=1e-3, rel=1e-5)


def test_a_fit_tells_data_from_prior() -> None:
    frames = label_structures(hard_eam(), rattled(4))
    eam = fit_eam(frames, settings=QUICK.model_copy(update={"max_iterations": 20}))
    found = eam.report["audit"]
    assert list(found) == ["O-O", "O-Si", "Si-Si"]
    shortest = min(
        atoms.get_all_distances(mic=True)[atoms.numbers == 8][:, atoms.numbers == 14].min() for atoms in frames
    )
    assert found["O-Si"]["seen"][0] == pytest.approx(shortest, rel=1e-12)
    for one in found.values():
        assert one["repulsive"]
        assert one["monotone"]
        assert one["wall_0.5"] > one["wall_1.0"] > 0
        assert one["from_0.5"] == "prior"
    (well,) = [point for point in found["O-Si"]["turning_points"] if point["energy"] < -0.5]
    assert well["kind"] == "minimum"
    assert well["from"] == ("data" if well["r"] >= shortest else "prior")
    # turning points are where the curve turns
    distance = torch.linspace(0.3, 5.9, 100_001, dtype=torch.float64)
    curve = dimer_curve(eam, 0, 1, distance)[0]
    assert well["r"] == pytest.approx(float(distance[curve.argmin()]), abs=0.005)


def test_finds_a_pair_that_attracts_at_contact() -> None:
    eam = TabulatedEAM(["Si"], 5.0, "alloy", points_r=501, step_r=0.01, points_rho=101, step_rho=0.1)
    distance = torch.arange(501, dtype=torch.float64) * 0.01
    eam.pair_table.copy_((distance * 5.0 * torch.sin(3.0 * distance))[None])  # rises from zero: no wall at all
    (found,) = audit(eam).values()
    assert not found["repulsive"]
    assert not found["monotone"]
    assert found["seen"] is None
    assert {point["from"] for point in found["turning_points"]} == {"prior"}
    assert audit(EAM(["Si"], 5.0))["Si-Si"]["repulsive"]
