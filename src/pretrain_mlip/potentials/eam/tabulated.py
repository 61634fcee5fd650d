"""An embedded-atom potential whose functions are tables, such as those of published potentials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pretrain_mlip.potentials.eam.embedded_atom import EmbeddedAtom
from pretrain_mlip.potentials.eam.pairs import Functions
from pretrain_mlip.potentials.eam.splines import Cubics, cubics, look_up, slopes_of_samples

if TYPE_CHECKING:
    from pretrain_mlip.potentials.eam.embedded_atom import Form


class TabulatedEAM(EmbeddedAtom):
    """Tables on uniform grids, interpolated as LAMMPS does (Hermite cubics with slopes by differences).

    ``pair_table`` (P, Nr) holds r phi(r) of the ``pairs`` in eV Å, ``density_table`` (S, Nr) or for ``fs`` (S, S, Nr),
    source and centre, ``embedding_table`` (S, Nrho) in eV. F is continued linearly above the last density. F(0) is kept
    as it is, E0 comes on top of it and is zero unless it is set.
    """

    kind = "tabulated_eam"
    pair_table: Tensor
    density_table: Tensor
    embedding_table: Tensor

    def __init__(
        self,
        elements: Sequence[str],
        cutoff: float,
        form: Form,
        *,
        points_r: int,
        step_r: float,
        points_rho: int,
        step_rho: float,
    ) -> None:
        super().__init__(elements, cutoff, form)
        count = len(self.elements)
        self.points_r, self.step_r, self.points_rho, self.step_rho = points_r, step_r, points_rho, step_rho
        sources = (count, count) if form == "fs" else (count,)
        for name, shape in (
            ("pair_table", (len(self.pairs), points_r)),
            ("density_table", (*sources, points_r)),
            ("embedding_table", (count, points_rho)),
        ):
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))
        self._embedding: tuple[Any, Cubics] | None = None

    def config(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "elements": list(self.elements),
            "cutoff": self.cutoff,
            "form": self.form,
            "points_r": self.points_r,
            "step_r": self.step_r,
            "points_rho": self.points_rho,
            "step_rho": self.step_rho,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> TabulatedEAM:
        """With tables of zeros."""
        grid = {name: config[name] for name in ("points_r", "step_r", "points_rho", "step_rho")}
        return cls(config["elements"], config["cutoff"], config["form"], **grid)

    def tabulate(self) -> Functions:
        count = len(self.elements)
        order = [self.pairs.index((min(a, b), max(a, b))) for a in range(count) for b in range(count)]
        density = self.density_table.reshape(-1, self.points_r)
        return Functions(
            cubics(self.pair_table[order], slopes_of_samples(self.pair_table[order], self.step_r), self.step_r),
            cubics(density, slopes_of_samples(density, self.step_r), self.step_r),
            count,
            self.form == "fs",
            self.cutoff,
        )

    def pair(self, a: int, b: int, distance: Tensor) -> tuple[Tensor, Tensor]:
        product, slope = look_up(self.functions().pair, a * len(self.elements) + b, distance, self.cutoff)
        value = product / distance
        return value, (slope - value) / distance

    def density(self, source: int, centre: int, distance: Tensor) -> tuple[Tensor, Tensor]:
        row = source * len(self.elements) + centre if self.form == "fs" else source
        return look_up(self.functions().density, row, distance, self.cutoff)

    def embedding(self, types: Tensor, density: Tensor) -> tuple[Tensor, Tensor]:
        table = self._embedding_cubics()
        scaled = density / self.step_rho
        interval = scaled.to(torch.int64).clamp_(0, self.points_rho - 2)
        u = (scaled - interval).clamp_(max=1.0)
        value, slope = table.both(interval + types * self.points_rho, u)
        end = (self.points_rho - 1) * self.step_rho
        return value.addcmul_(slope, (density - end).clamp_(min=0.0)), slope

    def _embedding_cubics(self) -> Cubics:
        state = (self.embedding_table.data_ptr(), self.embedding_table._version)
        if self._embedding is None or self._embedding[0] != state:
            slopes = slopes_of_samples(self.embedding_table, self.step_rho)
            self._embedding = (state, cubics(self.embedding_table, slopes, self.step_rho))
        return self._embedding[1]
