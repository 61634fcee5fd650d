"""Calculators that behave or fail in known ways, importable by name so that worker processes can make them too."""

from __future__ import annotations

import os

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT

from pretrain_mlip.errors import ComputationError


class FreeGas(Calculator):
    """No forces at all; counts its calls, and from call ``fails_at`` on does what ``how`` says."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, fails_at: int | None = None, how: str = "nan") -> None:
        super().__init__()
        self.fails_at, self.how, self.calls = fails_at, how, 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        self.calls += 1
        forces = np.zeros((len(self.atoms), 3))
        if self.fails_at is not None and self.calls > self.fails_at:
            forces = self._fail(forces)
        self.results = {"energy": 0.0, "forces": forces}

    def _fail(self, forces: np.ndarray) -> np.ndarray:
        if self.how == "nan":
            forces[1, 0] = np.nan
        elif self.how == "kick":
            forces[0] = 1e4
        elif self.how == "computation":
            raise ComputationError("energy is not finite")
        elif self.how == "bug":
            raise ValueError("wrong shape of something")
        elif self.how == "exit":
            os._exit(1)  # what a segmentation fault looks like from outside
        return forces


class Attraction(Calculator):
    """Every pair attracts harmonically (0.5 k r² with k in eV/Å²): atoms fall into each other."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, k: float = 1.0) -> None:
        super().__init__()
        self.k = k

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        vectors = self.atoms.positions[:, None] - self.atoms.positions[None]
        self.results = {"energy": 0.25 * self.k * np.sum(vectors**2), "forces": -self.k * vectors.sum(axis=1)}


def make_emt() -> EMT:
    return EMT()


def make_exit() -> FreeGas:
    return FreeGas(fails_at=3, how="exit")


def make_bug() -> FreeGas:
    return FreeGas(fails_at=3, how="bug")


def make_attraction() -> Attraction:
    return Attraction()
