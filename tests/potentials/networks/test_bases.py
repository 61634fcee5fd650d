"""Radial and angular functions against scipy, and their orthonormality."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import eval_legendre, sph_harm_y, spherical_jn
from tests.conftest import STRUCTURES

from pretrain_mlip.graphs.graph import make_graph
from pretrain_mlip.potentials.networks import build_model
from pretrain_mlip.potentials.networks.bases import (
    GaussianBasis,
    SmoothBesselBasis,
    SphericalBesselBasis,
    gaussian,
    spherical_harmonics,
)
from pretrain_mlip.potentials.networks.torchmd_net import ExpNormalBasis


def test_spherical_bessel_functions() -> None:
    cutoff, radial, angular = 5.0, 4, 6
    basis = SphericalBesselBasis(cutoff, radial, angular)
    r = torch.linspace(1.0, cutoff, 41, dtype=torch.float64)
    values = basis(r).unflatten(1, (angular, radial)).numpy()
    for degree in range(angular):
        roots = basis.roots[degree].numpy() * cutoff
        assert spherical_jn(degree, roots) == pytest.approx(np.zeros(radial), abs=1e-14)
        shape = spherical_jn(degree, np.outer(r.numpy() / cutoff, roots))
        norm = np.sqrt(2 / cutoff**3) / np.abs(spherical_jn(degree + 1, roots))
        # Upward recurrence loses about (2l - 1)!! / x^l of sixteen digits; x is at least 1.8 here
        assert values[:, degree] == pytest.approx(shape * norm, abs=1e-11)


@pytest.mark.parametrize("basis", [SmoothBesselBasis(5.0, 5), SphericalBesselBasis(5.0, 5, 1)])
def test_radial_functions_are_orthonormal(basis: torch.nn.Module) -> None:
    def overlap(first: int, second: int) -> float:
        def integrand(r: float) -> float:
            values = basis(torch.tensor([r], dtype=torch.float64))[0]
            return float(values[first] * values[second]) * r**2

        return quad(integrand, 1e-9, 5.0, epsabs=1e-11)[0]

    found = np.array([[overlap(a, b) for b in range(5)] for a in range(5)])
    assert found == pytest.approx(np.eye(5), abs=1e-8)


def test_smooth_functions_end_with_two_zero_derivatives() -> None:
    r = torch.tensor([5.0], dtype=torch.float64, requires_grad=True)
    for column in SmoothBesselBasis(5.0, 4)(r)[0]:
        (slope,) = torch.autograd.grad(column, r, create_graph=True)
        (curvature,) = torch.autograd.grad(slope.sum(), r, retain_graph=True)
        assert [float(column.detach()), float(slope.detach()), float(curvature)] == pytest.approx([0, 0, 0], abs=1e-12)


@pytest.mark.parametrize(
    "basis", [GaussianBasis(0.0, 5.0, 41), ExpNormalBasis(5.0, 32)], ids=lambda each: type(each).__name__
)
def test_gaussians_have_no_subnormal_tails(basis: torch.nn.Module) -> None:
    """In float32, in values and derivatives, and no step in float64."""
    r = torch.linspace(0.3, 5.0, 2000, requires_grad=True)
    values = basis(r)
    (slopes,) = torch.autograd.grad(values.sum(), r, create_graph=True)
    (curvatures,) = torch.autograd.grad(slopes.square().sum(), r)
    tiny = torch.finfo(torch.float32).tiny
    for found in (values, slopes, curvatures):
        size = found.detach().abs()
        assert not ((size > 0) & (size < 1e10 * tiny)).any()
    assert (values == 0).any()
    exponent = torch.linspace(30.0, 40.0, 10001, dtype=torch.float64)
    assert (gaussian(exponent) - torch.exp(-exponent)).abs().max() < torch.finfo(torch.float64).eps


def test_spherical_harmonics() -> None:
    directions = np.random.default_rng(0).normal(size=(20, 3))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    directions[0] = [0.0, 0.0, 1.0]
    ours = spherical_harmonics(torch.from_numpy(directions), 6).numpy()
    polar, azimuth = np.arccos(directions[:, 2]), np.arctan2(directions[:, 1], directions[:, 0])
    for degree in range(6):
        rows = ours[degree**2 : (degree + 1) ** 2]
        assert rows.T @ rows == pytest.approx(
            eval_legendre(degree, np.clip(directions @ directions.T, -1, 1)), abs=1e-12
        )
        norm = np.sqrt(4 * np.pi / (2 * degree + 1))
        assert rows[0] == pytest.approx(norm * sph_harm_y(degree, 0, polar, azimuth).real, abs=1e-12)
        for m in range(1, degree + 1):  # scipy has the Condon-Shortley phase
            expected = norm * np.sqrt(2) * (-1) ** m * sph_harm_y(degree, m, polar, azimuth)
            assert rows[2 * m - 1] == pytest.approx(expected.real, abs=1e-12)
            assert rows[2 * m] == pytest.approx(expected.imag, abs=1e-12)


@pytest.mark.parametrize("basis", ["bessel", "smooth"])
def test_constants_outlive_a_lower_precision(basis: str) -> None:
    network = build_model("m3gnet", ["O", "Si"], seed=1, basis=basis)
    graph = make_graph(STRUCTURES["quartz"], network.cutoff)
    there_and_back = build_model("m3gnet", ["O", "Si"], seed=1, basis=basis)  # weights are float32 already
    network.set_dtype(torch.float64)
    there_and_back.set_dtype(torch.float32)
    there_and_back.set_dtype(torch.float64)
    assert torch.equal(network(graph)["energy"], there_and_back(graph)["energy"])
