"""Potentials for LAMMPS's ``pair_style mliap unified``: an object that Python, embedded in LAMMPS, calls each step.

The file (.mliap) is a pickle, as LAMMPS wants it; it holds this class by name, and a TorchScript module as bytes. So
LAMMPS's Python needs this package, torch and numpy, and nobody should load such a file whose author they do not trust.

A process computes its own atoms, and for that the features of all atoms within ``layers - 1`` steps of them: on CPUs
LAMMPS hands over neighbours of ghosts as well (``ghostneigh 1``), as far as ``comm_modify cutoff`` reaches. With less
energies would be silently wrong; at the first call, the second, the fourth and so on every ghost's surroundings are
therefore compared with those of the atom that it is an image of. In builds with KOKKOS features travel between
processes instead, and neither is needed.
"""

from __future__ import annotations

import importlib.util
import io
import os
import pickle
import tempfile
import warnings
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.potentials import tracing  # noqa: F401  # makes the operators of exported code known
from pretrain_mlip.potentials.exported import ExportInfo, evaluate
from pretrain_mlip.potentials.ghosts import exchanging

SKIN = 1.0  # Å, of the neighbour lists in the decks
MOST_ATOMS = 10_000  # in one process: memory of mliap grows with their square, 54 GB at 24,576
SAME = 1e-5  # Å and Å², between surroundings of an atom and of its image: rounding is 1e-10, another neighbour 1


class MLIAPPotential:
    """What ``pair_style mliap unified`` asks for; pickled without the module itself.

    Attributes:
        element_types: chemical symbols in the order of the types.
        rcutfac: half of the cutoff in Å, as LAMMPS wants it.
        layers: the energy of an atom depends on others within layers * cutoff.
        halo: Å for ``comm_modify cutoff``, a skin included.
    """

    def __init__(self, script: bytes, info: ExportInfo) -> None:
        """Wrap an exported module.

        Args:
            script: content of a .ts.pt file.
            info: what it says of itself.
        """
        self.script = script
        self.info = info
        self.element_types = info.elements.split()
        self.cutoff = float(info.cutoff) or 1.0
        self.rcutfac = self.cutoff / 2
        self.layers = int(info.layers)
        self.halo = max(self.layers, 1) * self.cutoff + SKIN
        self.interface = None  # LAMMPS's own, from when it loads this
        self.ndescriptors = self.nparams = 1  # not used, but arrays of these sizes are made
        self._module: Any = None
        self._calls = 0

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_module": None, "_calls": 0, "interface": None}

    def pickle(self, path: str) -> None:
        """As LAMMPS's own objects have it."""
        with Path(path).open("wb") as stream:
            pickle.dump(self, stream)

    def compute_gradients(self, data: Any) -> None:
        """Nothing: energies and forces come together."""

    def compute_descriptors(self, data: Any) -> None:
        """Nothing: energies and forces come together."""

    def compute_forces(self, data: Any) -> None:
        """Energies of own atoms and forces of all, into the arrays of LAMMPS.

        Raises:
            ComputationError: this process does not know enough of its surroundings, or has too many atoms. It is
                printed as well, before LAMMPS says that something failed: mpiexec loses what a process that ends has
                just written to its stderr.
        """
        try:
            if hasattr(data, "forward_exchange"):
                self._compute_with_exchange(data)
            else:
                self._compute(data)
        except ComputationError as error:
            print(f"{type(error).__module__}.{type(error).__name__}: {error}", flush=True)  # noqa: T201
            raise

    def _compute(self, data: Any) -> None:
        own = data.nlocal
        if own > MOST_ATOMS:
            raise ComputationError(
                f"pair_style mliap: {own} atoms in one process; its memory grows with their square: use more processes "
                f"(at most {MOST_ATOMS} atoms each) or pair_style pretrain_mlip"
            )
        centre, neighbour, vectors = _edges(data)
        needed = self._needed(own, data.ntotal, centre, neighbour)
        self._calls += 1
        if self.layers > 1 and self._calls.bit_count() == 1:  # 1, 2, 4, 8, ...: cells change, at next to no cost
            self._check_surroundings(own, needed, centre, vectors)
        if own == 0:
            data.energy = 0.0  # LAMMPS adds what was there before
            return
        kept = np.flatnonzero(needed[centre])
        energies, gradient = evaluate(
            self._loaded(),
            self.cutoff,
            torch.from_numpy(np.array(data.elems, dtype=np.int64)),
            torch.from_numpy(np.stack([neighbour[kept], centre[kept]])),
            torch.from_numpy(vectors[kept]),
            own,
        )
        every = np.zeros((len(centre), 3))
        every[kept] = gradient.numpy()
        data.eatoms = np.ascontiguousarray(energies[:own].numpy())
        data.energy = float(energies.sum())
        if len(centre):
            data.update_pair_forces(every)

    def _needed(self, own: int, total: int, centre: np.ndarray, neighbour: np.ndarray) -> np.ndarray:
        """(N,) whether the features of an atom count: within ``layers - 1`` steps of own atoms."""
        needed = np.zeros(total, dtype=bool)
        needed[:own] = True
        for _ in range(self.layers - 1):
            needed[neighbour[needed[centre]]] = True
        return needed

    def _check_surroundings(self, own: int, needed: np.ndarray, centre: np.ndarray, vectors: np.ndarray) -> None:
        """Raises ComputationError where a ghost that counts has other neighbours than any own atom of any process.

        All processes raise together, with the same words: LAMMPS waits for all of them.
        """
        found = _surroundings(len(needed), centre, vectors)
        owners = _of_all_processes(found[:own])
        ghosts = found[own:][needed[own:]]
        apart = KDTree(owners).query(ghosts)[0] if len(owners) and len(ghosts) else np.full(len(ghosts), np.inf)
        wrong, known = _of_all_processes(np.array([[(apart > SAME).sum(), len(ghosts)]])).sum(axis=0)
        if wrong:
            raise ComputationError(
                f"pair_style mliap: {wrong} of {known} ghost atoms lack neighbours, and energies would be wrong: "
                f"write 'comm_modify cutoff {self.halo:g}' (or more, with a skin above {SKIN:g}) before the pair "
                "style, and 'pair_style mliap unified FILE 1', where 1 asks for the neighbours of ghosts"
                + ("" if importlib.util.find_spec("mpi4py") else "; on several processes mpi4py has to be installed")
            )

    def _compute_with_exchange(self, data: Any) -> None:
        """With KOKKOS, on arrays of torch or cupy: features of ghosts come from their owners, by LAMMPS."""
        own, total = data.nlocal, data.ntotal
        centre, neighbour = (torch.as_tensor(index).long() for index in (data.pair_i, data.pair_j))
        vectors = torch.as_tensor(data.rij).double().reshape(-1, 3)

        def from_owners(features: Tensor) -> Tensor:
            given = features.contiguous()
            filled = torch.empty_like(given)
            data.forward_exchange(given, filled, given.shape[1])
            return torch.cat([given[:own], filled[own:]])

        def to_owners(derivatives: Tensor) -> Tensor:
            given = derivatives.contiguous()
            added = torch.zeros_like(given)
            data.reverse_exchange(given, added, given.shape[1])
            return torch.cat([added[:own], torch.zeros_like(given[own:])])

        types = torch.as_tensor(data.elems).long()[:total]
        with exchanging(from_owners, to_owners):
            energies, gradient = evaluate(
                self._loaded(vectors.device), self.cutoff, types, torch.stack([neighbour, centre]), vectors, own
            )
        torch.as_tensor(data.eatoms).copy_(energies[:own])
        data.energy = energies.sum()
        data.update_pair_forces_gpu(gradient)

    def _loaded(self, device: torch.device | str = "cpu") -> Any:
        if self._module is None:
            torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or 1))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                self._module = torch.jit.load(io.BytesIO(self.script), map_location=device)
        return self._module


def _edges(data: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres and neighbours (E,) and vectors (E, 3) in Å."""
    if data.pair_i is None or data.npairs == 0:
        none = np.zeros(0, dtype=np.int64)
        return none, none, np.zeros((0, 3))
    return data.pair_i.astype(np.int64), data.pair_j.astype(np.int64), np.array(data.rij, dtype=np.float64)


def _surroundings(total: int, centre: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """(N, 5) number of neighbours, sums of their squared distances and of their vectors: the same for an image."""
    columns = [np.ones(len(centre)), np.square(vectors).sum(axis=1), *vectors.T]
    return np.stack([np.bincount(centre, weights=column, minlength=total) for column in columns], axis=1)


def _of_all_processes(rows: np.ndarray) -> np.ndarray:
    """The rows of every process, where mpi4py is there to ask for them and there are several."""
    try:
        from mpi4py import MPI
    except ImportError:
        return rows
    world = cast("Any", MPI).COMM_WORLD
    return np.concatenate(world.allgather(rows)) if world.size > 1 else rows


def write_mliap(path: str | os.PathLike[str], potential: Any, *, dtype: str | None = None) -> MLIAPPotential:
    """Write a potential for ``pair_style mliap unified``.

    Args:
        path: ends in ``.mliap``.
        potential: any potential of ours.
        dtype: "float32" or "float64" for networks; None keeps theirs.

    Raises:
        InputError: as ``write_export``.
        ComputationError: as ``write_export``.
    """
    from pretrain_mlip.deploy.exports import write_export  # not needed, nor imported, within LAMMPS
    from pretrain_mlip.files import atomic_path

    if not str(path).endswith(".mliap"):
        raise InputError(f"{path}: a file of format mliap is to end in .mliap")
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "potential.ts.pt"
        info = write_export(potential, script, "torchscript", dtype=dtype)
        made = MLIAPPotential(script.read_bytes(), info)
    with atomic_path(path) as temporary:
        made.pickle(str(temporary))
    return made
