"""Any potential of ours as an ASE calculator."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from torch_geometric.data import Data

from pretrain_mlip import keys
from pretrain_mlip.errors import InputError
from pretrain_mlip.graphs.graph import device_named, make_graph, within
from pretrain_mlip.potentials.base import Potential, Products, dtype_named
from pretrain_mlip.potentials.checkpoint import checkpoint_content, load_potential, potential_from_content
from pretrain_mlip.potentials.compiled import compiled, uncompiled
from pretrain_mlip.potentials.ensemble import SPREADS, Ensemble

_OF_ASE = frozenset({"atoms", "directory", "ignore_bad_restart_file", "label", "restart"})


class PretrainedMLIP(Calculator):
    """Energy, free energy, forces, stress and atomic energies of a potential; energy_std and forces_std of an ensemble.

    The neighbour list is built with a skin and kept until an atom has moved by half of it, the cell has changed or
    atoms have been exchanged. Structures may be smaller than the cutoff, molecules without a cell, slabs, single atoms.
    The stress (eV/Å³, ASE's sign and order) exists where all three directions are periodic.
    """

    implemented_properties = [  # noqa: RUF012  # as ASE declares it
        "energy",
        "free_energy",
        "forces",
        "stress",
        "energies",
    ]
    potential: Potential

    def __init__(
        self,
        potential: Potential,
        *,
        device: str = "cpu",
        dtype: str | None = None,
        skin: float = 0.5,
        memory_limit: float | None = None,
        compile: bool = False,  # noqa: A002  # the name of what torch does
        products: Products | None = None,
        **ase_options: Any,
    ) -> None:
        """Wrap a potential, which is moved and frozen, not copied.

        Args:
            potential: any potential of ours.
            device: "cpu", "cuda", ..., or "auto" for a GPU where there is one.
            dtype: "float32" or "float64" for networks; None keeps theirs. Analytic parts are always float64.
            skin: Å added to the cutoff of the neighbour list; 0 rebuilds it at every call.
            memory_limit: GiB that intermediate results of a network may take; above it they are computed piece by piece
                and twice. None leaves the potential as it is.
            compile: compile networks at the first call, which takes up to a minute and makes later ones faster.
            products: "tf32" or "bfloat16" multiply matrices of float32 networks in that precision, for GPUs that are
                fast at it; see ``Potential.set_products``. None leaves the potential as it is.
            ase_options: of ``ase.calculators.calculator.Calculator``: atoms, directory, label.

        Raises:
            InputError: it is no potential, an option is unknown, the device, the dtype or a C++ compiler for
                ``compile`` is not available, the skin is negative, the memory limit is not positive, or the precision
                of products is unknown.
        """
        if strange := sorted(set(ase_options) - _OF_ASE):
            raise InputError(
                f"PretrainedMLIP has no option {', '.join(strange)}; those of ASE are {', '.join(sorted(_OF_ASE))}"
            )
        if not isinstance(potential, Potential):
            raise InputError(
                f"PretrainedMLIP expects a potential (got {type(potential).__name__}); files: PretrainedMLIP.load(path)"
            )
        super().__init__(**ase_options)
        if not skin >= 0:
            raise InputError(f"skin {skin} Å: must not be negative")
        self.device = device_named(device)
        self.skin = float(skin)
        compile = compile or uncompiled(potential) is not potential  # noqa: A001
        self.potential = uncompiled(potential).to(self.device).eval().requires_grad_(False)  # noqa: FBT003
        if dtype is not None:
            self.potential.set_dtype(dtype_named(dtype))
        if memory_limit is not None:
            self.potential.set_memory_limit(memory_limit)
        if products is not None:
            self.potential.set_products(products)
        self.memory_limit = memory_limit
        self.products: Products | None = products
        self.compile = compile
        self._evaluate = compiled(self.potential) if compile else self.potential
        if self.potential.spread:
            self.implemented_properties = [*type(self).implemented_properties, *SPREADS.values()]
        self._graph: Data | None = None
        self._built_from: Atoms | None = None

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        device: str = "auto",
        dtype: str | None = None,
        **options: Any,
    ) -> PretrainedMLIP:
        """A calculator from a checkpoint (.pt), eam.json or setfl tables; other arguments as for the constructor.

        Several files make an ensemble: mean values, and the standard deviations energy_std and forces_std.

        Raises:
            InputError: a file is missing, damaged or not ours, or potentials of an ensemble differ in elements.
        """
        if isinstance(path, str | os.PathLike):
            return cls(load_potential(path), device=device, dtype=dtype, **options)
        return cls(Ensemble([load_potential(one) for one in path]), device=device, dtype=dtype, **options)

    @classmethod
    def from_matgl(
        cls, path: str | os.PathLike[str], *, device: str = "auto", dtype: str | None = None, **options: Any
    ) -> PretrainedMLIP:
        """A calculator from a folder in which MatGL saved an M3GNet potential; other arguments as for the constructor.

        ``potential`` is then ready to be saved, or to be finetuned.

        Raises:
            InputError: see ``potential_from_matgl``.
        """
        from pretrain_mlip.potentials.networks.from_matgl import potential_from_matgl

        return cls(potential_from_matgl(path), device=device, dtype=dtype, **options)

    @classmethod
    def from_torchmd_net(
        cls,
        path: str | os.PathLike[str],
        *,
        elements: Sequence[str] | None = None,
        device: str = "auto",
        dtype: str | None = None,
        **options: Any,
    ) -> PretrainedMLIP:
        """A calculator from a checkpoint of TorchMD-NET's equivariant transformer, trained in eV and Å.

        ``elements`` to keep, all by default; other arguments as for the constructor.

        Raises:
            InputError: the file is missing or damaged, or something in it is not supported.
        """
        from pretrain_mlip.potentials.networks.from_torchmd_net import potential_from_torchmd_net

        return cls(potential_from_torchmd_net(path, elements), device=device, dtype=dtype, **options)

    def calculate(
        self, atoms: Atoms | None = None, properties: list[str] | None = None, system_changes: list[str] = all_changes
    ) -> None:
        """Fill ``results``; everything is computed at once.

        Raises:
            InputError: an element is not supported, or positions or cell are not finite.
        """
        self.results = {}  # those of before are not of these atoms, if what follows fails
        super().calculate(atoms, properties, system_changes)
        current = cast("Atoms", self.atoms)
        graph = self._current_graph(current)
        output = {name: value.detach().cpu().numpy() for name, value in self._evaluate(graph).items()}
        energy = float(output[keys.ENERGY][0])
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "energies": output[keys.ENERGIES],
            "forces": output[keys.FORCES],
        }
        if keys.ENERGY_STD in output:
            self.results[keys.ENERGY_STD] = float(output[keys.ENERGY_STD][0])
            self.results[keys.FORCES_STD] = output[keys.FORCES_STD]
        if current.pbc.all():
            self.results["stress"] = output[keys.STRESS][0]
        elif properties is not None and "stress" in properties:
            raise InputError("stress needs a cell that is periodic in three directions")

    def _current_graph(self, atoms: Atoms) -> Data:
        """The graph of what interacts, from the kept list where that still holds."""
        if not np.isfinite(atoms.positions).all():
            bad = int(np.argwhere(~np.isfinite(atoms.positions))[0, 0])
            raise InputError(f"position of atom {bad} ({atoms.symbols[bad]}) is not finite")
        if self._graph is None or self._stale(atoms):
            self.potential.types(
                torch.from_numpy(atoms.numbers.astype(np.int64)).to(self.device)
            )  # names what it lacks
            reach = self.potential.cutoff + self.skin
            self._graph = make_graph(atoms, reach, half=self.potential.half_list).to(str(self.device))
            self._built_from = atoms.copy()
        graph = self._graph
        graph[keys.POSITIONS] = torch.from_numpy(np.array(atoms.positions, dtype=np.float64)).to(self.device)
        return graph if self.skin == 0 or self.potential.half_list else within(graph, self.potential.cutoff)

    def _stale(self, atoms: Atoms) -> bool:
        old = self._built_from
        if old is None or self.skin == 0 or len(old) != len(atoms):
            return True
        if (
            (old.numbers != atoms.numbers).any()
            or (old.pbc != atoms.pbc).any()
            or (old.cell.array != atoms.cell.array).any()
        ):
            return True
        moved = np.square(atoms.positions - old.positions).sum(1).max(initial=0.0)
        return bool(moved > (0.5 * self.skin) ** 2)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state["potential"] = checkpoint_content(self.potential)
        state["_graph"] = state["_built_from"] = state["_evaluate"] = None
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.potential = potential_from_content(state["potential"]).to(self.device)
        if self.memory_limit is not None:
            self.potential.set_memory_limit(self.memory_limit)
        if self.products is not None:
            self.potential.set_products(self.products)
        self._evaluate = compiled(self.potential) if self.compile else self.potential
