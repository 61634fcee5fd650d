"""Writing an EAM as setfl tables, ``pair_style eam/alloy`` and ``eam/fs`` of LAMMPS (``units metal``: eV, Å).

Layout: three comment lines; the elements; Nrho drho Nr dr cutoff; per element its number, mass, lattice constant and
lattice, F(rho_0 ...) and its densities f(0 ...) (eam/fs: one per centre element); then r phi(r) of all pairs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch
from ase.data import atomic_masses, atomic_numbers, reference_states
from torch import Tensor

import pretrain_mlip
from pretrain_mlip.errors import InputError
from pretrain_mlip.files import write_text
from pretrain_mlip.potentials.radial import COULOMB

if TYPE_CHECKING:
    from pretrain_mlip.potentials.eam.embedded_atom import EmbeddedAtom

PER_LINE = 5
NEIGHBORS_AT_CONTACT = 16  # the table reaches the density of so many atoms at contact: more than any simulation meets


def write_setfl(
    eam: EmbeddedAtom,
    path: str | os.PathLike[str],
    *,
    points_r: int = 4000,
    points_rho: int = 10000,
    include_e0: bool = False,
) -> None:
    """Write setfl with 17 digits, eam/fs for the form ``fs`` and eam/alloy otherwise.

    Args:
        eam: the potential.
        path: the file, usually ``*.eam.alloy`` or ``*.eam.fs`` (other programs tell the two apart by the name).
        points_r: table size in r; dr = cutoff / (points_r - 1), so that the last point lies on the cutoff.
        points_rho: table size in the density.
        include_e0: add E0 to the embedding functions, so that energies include it; otherwise an isolated atom has zero
            energy in the file (header line 3 says which).

    Raises:
        InputError: a table holds negative densities or values that are not finite, or the name contradicts the form.
    """
    suffix = os.fspath(path).rsplit(".", 1)[-1]
    if suffix in ("alloy", "fs") and suffix != eam.form:
        raise InputError(
            f"{path}: this EAM has the form '{eam.form}'; other programs read a file named *.{suffix} differently"
        )
    if min(points_r, points_rho) < 100:
        raise InputError(f"setfl tables of {points_r} and {points_rho} points are too coarse; use at least 100")
    with torch.no_grad():
        write_text(path, "\n".join(_lines(eam, points_r, points_rho, include_e0=include_e0)) + "\n")


def _lines(eam: EmbeddedAtom, points_r: int, points_rho: int, *, include_e0: bool) -> list[str]:
    count = len(eam.elements)
    step_r = eam.cutoff / (points_r - 1)
    distance = torch.arange(points_r, dtype=torch.float64) * step_r
    distance[-1] = eam.cutoff
    columns = range(count) if eam.form == "fs" else range(1)
    densities = {(a, c): eam.density(a, c, distance)[0] for a in range(count) for c in columns}
    largest = NEIGHBORS_AT_CONTACT * max(float(values.max()) for values in densities.values())
    step_rho = largest / (points_rho - 1)
    density = torch.arange(points_rho, dtype=torch.float64) * step_rho
    references = " ".join(f"{symbol} {value:.10g}" for symbol, value in eam.reference_energies().items())
    lines = [
        f"pretrain-mlip {pretrain_mlip.__version__} eam/{eam.form}, LAMMPS units metal (eV, Angstrom)",
        f"fitted to data {eam.report.get('data_hash', 'unknown')}",
        f"E0 in eV: {references} ({'included in' if include_e0 else 'NOT included in'} the embedding functions)",
        f"{count} {' '.join(eam.elements)}",
        f"{points_rho} {step_rho:.17g} {points_r} {step_r:.17g} {eam.cutoff:.17g}",
    ]
    for a, symbol in enumerate(eam.elements):
        number = atomic_numbers[symbol]
        state = reference_states[number] or {}
        lines.append(
            f"{number} {atomic_masses[number]:.17g} {state.get('a', 0.0) or 0.0:.17g} {state.get('symmetry', 'none')}"
        )
        embedded = eam.embedding(torch.full((points_rho,), a), density)[0]
        lines += _table(embedded + float(eam.e0[a]) if include_e0 else embedded, f"embedding function of {symbol}")
        for c in columns:
            if float(densities[a, c].min()) < 0:
                raise InputError(f"the density of {symbol} is negative somewhere; the tables would be misread")
            lines += _table(densities[a, c], f"density of {symbol}")
    for a in range(count):
        for b in range(a + 1):
            product = distance * eam.pair(a, b, distance.clamp(min=1e-9))[0]
            product[0] = (
                COULOMB * atomic_numbers[eam.elements[a]] * atomic_numbers[eam.elements[b]]
            )  # limit of r ZBL(r)
            lines += _table(product, f"pair function of {eam.elements[a]}-{eam.elements[b]}")
    return lines


def _table(values: Tensor, name: str) -> Iterable[str]:
    numbers = values.numpy()
    if not np.isfinite(numbers).all():
        raise InputError(f"the {name} is not finite everywhere; the fit that it comes from did not converge")
    return (" ".join(f"{value:.17g}" for value in numbers[i : i + PER_LINE]) for i in range(0, len(numbers), PER_LINE))
