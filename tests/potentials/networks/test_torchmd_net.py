"""What is particular to the equivariant transformer; what every potential does is in test_physics.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from tests.conftest import STRUCTURES
from torch import Tensor

from pretrain_mlip import keys
from pretrain_mlip.calculators.batched import predict
from pretrain_mlip.errors import InputError
from pretrain_mlip.graphs.graph import edge_vectors, make_graph
from pretrain_mlip.potentials.networks import attention_sums, build_model
from pretrain_mlip.potentials.networks.base import Network

# Of all kinds of parameters, and narrow enough for derivatives of derivatives
NARROW = {"width": 16, "layers": 3, "heads": 4, "radial": 10, "cutoff": 4.0}


def network(**options: object) -> Network:
    """Float64, weights not zero anywhere, to be trained."""
    potential = build_model("torchmd_net", ["O", "Si"], seed=2, **{**NARROW, **options})
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in potential.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    potential.set_dtype(torch.float64)
    return potential


def inputs(potential: Network, atoms: Atoms) -> tuple[Tensor, Tensor, Tensor]:
    graph = make_graph(atoms, potential.cutoff)
    return potential.types(graph[keys.ATOMIC_NUMBERS]), graph[keys.EDGE_INDEX], edge_vectors(graph)


def frozen(potential: Network) -> Network:
    return potential.requires_grad_(False)


VARIANTS = [{}, {"vector_cutoff": False}, {"envelope": "cosine", "norm_softening": 0.0}, {"trainable_basis": True}]


@pytest.mark.parametrize("options", VARIANTS)
@pytest.mark.parametrize("name", ["quartz", "one atom, cell smaller than the cutoff", "isolated atom"])
def test_derivative_by_hand(options: dict[str, object], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    potential = network(**options)
    given = inputs(potential, STRUCTURES[name])
    energies, gradient = potential.energies_and_gradient(*given, create_graph=True)  # by automatic differentiation
    # At the tip of the cone, where one atom in a cell is, the direction of a vector is that of its rounding
    accuracy = 1e-7 if name.startswith("one atom") and not potential.settings.norm_softening else 1e-12
    monkeypatch.setattr(attention_sums, "_BLOCK", 16 * 50)  # several blocks, the last one not full
    for limit in (None, 1e-6):  # with and without what is kept for the derivative
        potential.memory_limit = limit
        by_hand = potential.energies_and_gradient(*given)
        assert by_hand[0].numpy() == pytest.approx(energies.detach().numpy(), abs=1e-12)
        assert by_hand[1].numpy() == pytest.approx(gradient.detach().numpy(), rel=0, abs=accuracy)


def test_a_memory_limit_keeps_less(monkeypatch: pytest.MonkeyPatch) -> None:
    potential = network()
    given = inputs(potential, STRUCTURES["quartz"])
    kept = []
    backward = attention_sums._blocks
    monkeypatch.setattr(
        attention_sums, "_blocks", lambda ctx, *rest, **how: kept.append(ctx.kept) or backward(ctx, *rest, **how)
    )
    potential.energies_and_gradient(*given)
    assert all(arrays is not None for arrays in kept)
    assert len(kept) == 2 * potential.settings.layers
    kept.clear()
    potential.memory_limit = 1e-6
    potential.energies_and_gradient(*given)
    assert kept == [None] * 6


def test_every_weight_takes_part() -> None:
    potential = network(trainable_basis=True)
    energies, gradient = potential.energies_and_gradient(*inputs(potential, STRUCTURES["triclinic"]), create_graph=True)
    (energies.square().sum() + gradient.square().sum()).backward()
    slopes = [weight.grad for weight in potential.parameters() if weight.grad is not None]
    assert len(slopes) == len(list(potential.parameters()))
    assert all(slope.any() for slope in slopes)


SYMMETRIC = {  # the vector features of some or all atoms are zero
    "isolated": Atoms("O"),
    "octahedron": Atoms("SiO6", positions=1.7 * np.vstack([np.zeros((1, 3)), np.eye(3), -np.eye(3)])),
    "diamond": bulk("Si", "diamond", a=5.4),
    "rock salt": bulk("SiO", "rocksalt", a=4.4),
}


@pytest.mark.parametrize("softening", [0.0, 1e-2])
@pytest.mark.parametrize("name", list(SYMMETRIC))
def test_zero_vectors(name: str, softening: float) -> None:
    potential = network(norm_softening=softening)
    energies, gradient = potential.energies_and_gradient(*inputs(potential, SYMMETRIC[name]), create_graph=True)
    (energies.square().sum() + gradient.square().sum()).backward()
    assert torch.isfinite(energies).all()
    assert torch.isfinite(gradient).all()
    for weight in potential.parameters():
        assert weight.grad is None or torch.isfinite(weight.grad).all()
    (labels,) = predict(frozen(potential), [SYMMETRIC[name]])
    assert labels.forces is not None
    assert np.isfinite(labels.forces).all()
    if softening > 0:  # without, forces take the direction of what rounding leaves of the vectors
        assert labels.forces[0] == pytest.approx(np.zeros(3), abs=1e-10)


def force_at_centre(softening: float, step: float) -> float:
    atoms = SYMMETRIC["octahedron"].copy()
    atoms.positions[0, 0] += step
    (labels,) = predict(frozen(network(norm_softening=softening)), [atoms])
    assert labels.forces is not None
    return float(labels.forces[0, 0])


def test_softening_removes_the_cone() -> None:
    # At a site of high symmetry the force jumps with |v|; softened, it grows from zero with the displacement
    assert abs(force_at_centre(0.0, 1e-6)) > 1e-3
    assert abs(force_at_centre(1e-2, 1e-6)) < 1e-4
    assert force_at_centre(1e-2, 2e-6) == pytest.approx(2 * force_at_centre(1e-2, 1e-6), rel=1e-3)


def leaving(potential: Network) -> tuple[np.ndarray, np.ndarray]:
    """Energies and forces of an atom that leaves the cutoff in steps of 1e-4 Å, which the third step passes."""
    distances = potential.cutoff + 1e-4 * np.arange(-2.5, 3)
    frames = [Atoms("SiO2", positions=[[0, 0, 0], [d, 0, 0], [0.2, 1.6, 0]]) for d in distances]
    found = predict(frozen(potential), frames)
    forces = [labels.forces[1, 0] for labels in found if labels.forces is not None]
    return np.array([labels.energy for labels in found]), np.array(forces)


def test_cosine_is_continuous_with_a_kink_of_forces() -> None:
    energies, forces = leaving(network(envelope="cosine"))
    assert np.abs(np.diff(energies)).max() < 1e-6
    slopes = np.diff(forces) / 1e-4
    assert abs(slopes[0]) > 100 * abs(slopes[-1])  # the second derivative jumps to that of the far atom alone
    smooth = np.diff(leaving(network())[1]) / 1e-4
    assert np.abs(smooth).max() < 0.1 * abs(slopes[0])


def test_without_vector_cutoff_energies_jump() -> None:
    assert np.abs(np.diff(leaving(network(vector_cutoff=False))[0])).max() > 1e-4
    assert np.abs(np.diff(leaving(network())[0])).max() < 1e-6


def test_average_neighbors_scales_neighbours_only() -> None:
    potential = frozen(network())
    lone, pair = Atoms("O"), Atoms("O2", positions=[[0, 0, 0], [1.3, 0, 0]])
    before = [labels.energy for labels in predict(potential, [lone, pair])]
    potential.set_scales(1.0, 50.0)
    after = [labels.energy for labels in predict(potential, [lone, pair])]
    assert after[0] == pytest.approx(before[0], abs=1e-12)
    assert abs(after[1] - before[1]) > 1e-3


def test_reset_output() -> None:
    potential = frozen(network())
    potential.reset_output()
    (labels,) = predict(potential, [STRUCTURES["quartz"]])
    assert labels.energy == 0
    assert labels.forces is not None
    assert not labels.forces.any()


@pytest.mark.parametrize("options", [{"width": 30}, {"width": 15, "heads": 5}])
def test_widths_that_do_not_divide(options: dict[str, int]) -> None:
    with pytest.raises(InputError, match="must be even and a multiple of heads"):
        build_model("torchmd_net", ["O"], **options)
