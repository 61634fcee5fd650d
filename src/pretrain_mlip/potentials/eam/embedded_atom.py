"""What every embedded-atom potential does with its functions, whether they are fitted or read from tables.

    E = sum_i [ E0(Z_i) + F_Zi(rho_i) + 1/2 sum_j phi_ZiZj(r_ij) ],   rho_i = sum_j f_ZjZi(r_ij)

(Daw and Baskes, Phys. Rev. B 29, 6443 (1984).) Energies, forces and stress are analytic sums over a half list. The
functions are tabulated once; between nodes they are cubics, and forces are the exact derivatives of these.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Literal

import torch
from ase.data import atomic_numbers, covalent_radii
from torch import Tensor

from pretrain_mlip import keys
from pretrain_mlip.graphs.graph import batch_index, half_of
from pretrain_mlip.potentials.base import Potential, stress_from_virial
from pretrain_mlip.potentials.eam.pairs import Functions, PairSums, half_list_chunks, locate

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from torch_geometric.data import Data

    from pretrain_mlip.calculators.ase import PretrainedMLIP

Form = Literal["alloy", "fs"]


class EmbeddedAtom(Potential):
    """An embedded-atom potential with E0s; float64 always.

    Attributes:
        form: ``alloy``, densities depend on the source element; ``fs``, on source and centre.
        pairs: unordered pairs of types, the smaller first.
        report: how it was fitted or where it comes from, carried along in eam.json.
    """

    half_list = True
    e0: Tensor

    def __init__(self, elements: Sequence[str], cutoff: float, form: Form) -> None:
        super().__init__(elements, cutoff)
        self.form: Form = form
        self.report: dict[str, Any] = {}
        count = len(self.elements)
        self.pairs = [(a, b) for a in range(count) for b in range(a, count)]
        self.register_buffer("e0", torch.zeros(count, dtype=torch.float64))
        self._tabulated: tuple[Any, Functions] | None = None

    @abstractmethod
    def pair(self, a: int, b: int, distance: Tensor) -> tuple[Tensor, Tensor]:
        """Phi of two types at distances > 0 (Å), eV, and its derivative, eV/Å."""

    def pair_parts(self, a: int, b: int, distance: Tensor) -> dict[str, Tensor]:
        """The terms whose sum is phi, eV, by name."""
        return {"pair": self.pair(a, b, distance)[0]}

    @abstractmethod
    def density(self, source: int, centre: int, distance: Tensor) -> tuple[Tensor, Tensor]:
        """The density of a source atom at a centre, dimensionless, and its derivative, 1/Å."""

    @abstractmethod
    def embedding(self, types: Tensor, density: Tensor) -> tuple[Tensor, Tensor]:
        """Embedding energies F of atoms of the given types at the given densities, eV, and their derivatives."""

    @abstractmethod
    def tabulate(self) -> Functions:
        """The radial functions as tables, differentiable with respect to parameters where there are any."""

    def functions(self) -> Functions:
        """The tables, made again only when a parameter has changed (in place of ``.data``, torch does not tell)."""
        values = [*self.parameters(), *self.buffers()]
        state = [(value.data_ptr(), 0 if value.is_inference() else value._version) for value in values]
        if self._tabulated is None or self._tabulated[0] != state:
            with torch.no_grad():
                self._tabulated = (state, self.tabulate())
        return self._tabulated[1]

    def forward(
        self, graph: Data, *, forces: bool = True, stress: bool = True, create_graph: bool = False
    ) -> dict[str, Tensor]:
        """As of any potential, from a full or a half list, whose edges may exceed the cutoff.

        ``create_graph`` makes the result differentiable by the geometry, not by parameters: these are in the tables.
        """
        if create_graph:
            return super().forward(graph, forces=forces, stress=stress, create_graph=True)
        with torch.no_grad():
            types = self.types(graph[keys.ATOMIC_NUMBERS])
            batch, volume = batch_index(graph), graph[keys.VOLUME]
            functions = self.functions()
            sums = half_list_sums(functions, types, half_of(graph))
            density, energies = sums.before(functions)
            embedded, slope = self.embedding(types, density)
            energies = energies.add_(embedded).add_(self.e0.index_select(0, types))
            energy = energies.new_zeros(volume.shape[0]).index_add_(0, batch, energies)
            result = {keys.ENERGIES: energies, keys.ENERGY: energy}
            if forces:
                result[keys.FORCES], strain_derivative = sums.after(functions, slope, virial=stress)
                if stress:
                    result[keys.STRESS] = stress_from_virial(strain_derivative, volume)
        return result

    def atomic_energies(self, types: Tensor, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        neighbour, centre = edge_index
        functions = self.functions()
        pairs = locate(functions, types, centre, neighbour, *edge_vectors.to(torch.float64).unbind(1))
        zeros = pairs.u.new_zeros(types.shape[0])
        density = zeros.index_add(0, centre, functions.density.value(pairs.onto_first, pairs.u))
        energies = zeros.index_add(0, centre, 0.5 * functions.pair.value(pairs.pair, pairs.u) * pairs.inverse)
        return self.e0.index_select(0, types) + energies + self.embedding(types, density)[0]

    def covalent_sum(self, a: int, b: int) -> float:
        """Sum of the covalent radii of two types, Å."""
        return float(
            covalent_radii[atomic_numbers[self.elements[a]]] + covalent_radii[atomic_numbers[self.elements[b]]]
        )

    def pair_name(self, a: int, b: int) -> str:
        """A pair of types as symbols in alphabetical order, "O-Si"."""
        return "-".join(sorted((self.elements[a], self.elements[b])))

    def reference_energies(self) -> dict[str, float]:
        """E0 of each element, eV."""
        return dict(zip(self.elements, self.e0.tolist(), strict=True))

    def set_dtype(self, dtype: torch.dtype) -> None:
        """An EAM stays in float64: it is cheap, and its walls are steep."""

    def calculator(self) -> PretrainedMLIP:
        """An ASE calculator."""
        from pretrain_mlip.calculators.ase import PretrainedMLIP

        return PretrainedMLIP(self)

    def write_setfl(self, path: str | os.PathLike[str], **options: Any) -> None:
        """Write eam/alloy or eam/fs tables; see ``pretrain_mlip.potentials.eam.setfl.write_setfl``."""
        from pretrain_mlip.potentials.eam.setfl import write_setfl

        write_setfl(self, path, **options)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write eam.json: everything that ``EAM.load`` needs, in text, and the report."""
        from pretrain_mlip.potentials.eam.storage import save_eam

        save_eam(self, path)


def half_list_sums(functions: Functions, types: Tensor, graph: Data) -> PairSums:
    """The pair sums of a graph with a half list."""
    batch, shifts, cell = batch_index(graph), graph[keys.CELL_SHIFTS], graph[keys.CELL]
    second, first = graph[keys.EDGE_INDEX]
    positions = graph[keys.POSITIONS].T.contiguous()
    structures = cell.shape[0]

    rows = cell[0].tolist()

    def offsets(part: slice) -> list[Tensor]:
        """Cartesian components of the images' shifts."""
        images = shifts[part].T.to(positions.dtype, memory_format=torch.contiguous_format)
        if structures == 1:  # a product of thin matrices takes three times as long
            a, b, c = images.unbind(0)
            return [(a * rows[0][k]).add_(b, alpha=rows[1][k]).add_(c, alpha=rows[2][k]) for k in range(3)]
        cells = cell.index_select(0, batch.index_select(0, first[part]))
        return list(torch.einsum("ae,eab->be", images, cells))

    def vectors(part: slice) -> list[Tensor]:
        return [
            row.index_select(0, second[part]).sub_(row.index_select(0, first[part])).add_(offset)
            for row, offset in zip(positions, offsets(part), strict=True)
        ]

    chunks = half_list_chunks(functions, types, graph[keys.EDGE_INDEX], vectors, batch if structures > 1 else None)
    return PairSums(chunks, types.shape[0], structures)
