"""Writing an EAM as setfl tables, ``pair_style eam/alloy`` and ``eam/fs`` of LAMMPS (``units metal``: eV, Å).

Layout: three comment lines; the elements; Nrho drho Nr dr cutoff; per element its number, mass, lattice constant and
lattice, F(rho_0 ...) and its densities f(0 ...) (eam/fs: one per centre element); then r phi(r) of all pairs.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from ase.data import atomic_masses, atomic_numbers, reference_states
from torch import Tensor

import pretrain_mlip
from pretrain_mlip.errors import InputError
from pretrain_mlip.files import write_text
from pretrain_mlip.potentials.eam.tabulated import TabulatedEAM
from pretrain_mlip.potentials.radial import COULOMB

if TYPE_CHECKING:
    from pretrain_mlip.potentials.eam.embedded_atom import EmbeddedAtom

PER_LINE = 5
FEWEST, MOST = 100, 1_000_000  # points of a table
PACKED, HIGHEST = 0.70, 100.0  # of the covalent sum; of the density: see ``_highest_density``
STEP_RHO = 5e-4  # at most, unless points_rho says otherwise; see ``as_tables``


def write_setfl(
    eam: EmbeddedAtom,
    path: str | os.PathLike[str],
    *,
    points_r: int | None = None,
    points_rho: int | None = None,
    include_e0: bool = False,
) -> None:
    """Write setfl with 17 digits, eam/fs for the form ``fs`` and eam/alloy otherwise.

    A potential that is made of tables is written as it is, so that reading the file gives the same potential.

    Args:
        eam: the potential.
        path: the file, ``*.alloy`` or ``*.fs`` as the form is (other programs tell the two apart by the name), or
            ``*.setfl``.
        points_r: table size in r, see ``as_tables``.
        points_rho: table size in the density.
        include_e0: add E0 to the embedding functions, so that energies include it; otherwise they do not (header line 3
            says which).

    Raises:
        InputError: a table holds negative densities or values that are not finite, is too coarse or ends before the
            cutoff, or the name contradicts the form.
    """
    suffix = Path(path).suffix
    if suffix not in (f".{eam.form}", ".setfl"):
        raise InputError(
            f"{path}: this EAM has the form '{eam.form}' and other programs go by the name; "
            f"name the file *.eam.{eam.form}"
        )
    with torch.no_grad():
        tables = as_tables(eam, points_r, points_rho)
        if include_e0:
            tables.embedding_table += tables.e0[:, None]
        _check(tables)
        write_text(path, "\n".join(_lines(tables, include_e0=include_e0)) + "\n")


def as_tables(eam: EmbeddedAtom, points_r: int | None = None, points_rho: int | None = None) -> TabulatedEAM:
    """An EAM as tables, with its E0s and its report; a copy of one that is made of tables already.

    Args:
        eam: the potential.
        points_r: table size in r; the last point lies on the cutoff. The nodes that this package evaluates the EAM
            from where not given, so that both differ by no more than the slopes between nodes.
        points_rho: table size in the density, up to that of a close packing with neighbours at 0.70 of the sum of their
            covalent radii, but 100 at most. Where not given, so many that the step is at most 5e-4. LAMMPS
            takes the slope of F at the first node from the difference of two samples, wrong by 11 k1 times the step
            because F''(0) = 22 k1: atoms of density below one step, all but isolated, are then wrong by up to 1e-6 k1,
            others by less than 1e-8 k1.

    Raises:
        InputError: a size is out of range, or is given for a potential that has tables of its own.
    """
    if isinstance(eam, TabulatedEAM):
        if points_r is not None or points_rho is not None:
            name = eam.report.get("source", "this potential")
            raise InputError(f"{name} is made of tables, which keep their sizes; leave points_r and points_rho out")
        copy = TabulatedEAM.from_config(eam.config())
        copy.load_state_dict(eam.state_dict())
        copy.report = dict(eam.report)
        return copy
    eam = deepcopy(eam).cpu()
    count = len(eam.elements)
    points_r = _size("points_r", eam.functions().pair.nodes if points_r is None else points_r)
    step_r = eam.cutoff / (points_r - 1)
    distance = torch.arange(points_r, dtype=torch.float64) * step_r
    distance[-1] = eam.cutoff
    centres = range(count) if eam.form == "fs" else range(1)
    densities = torch.stack([eam.density(a, c, distance)[0] for a in range(count) for c in centres])
    largest = _highest_density(eam)
    if not bool(torch.isfinite(densities).all()) or not largest > 0:
        raise InputError("a density is zero or not finite; the fit that it comes from did not converge")
    points_rho = _size("points_rho", math.ceil(largest / STEP_RHO) + 1 if points_rho is None else points_rho)
    step_rho = largest / (points_rho - 1)
    density = torch.arange(points_rho, dtype=torch.float64) * step_rho
    grid = {"points_r": points_r, "step_r": step_r, "points_rho": points_rho, "step_rho": step_rho}
    tables = TabulatedEAM.from_config({"elements": eam.elements, "cutoff": eam.cutoff, "form": eam.form} | grid)
    tables.density_table.copy_(densities.reshape(tables.density_table.shape))
    for a in range(count):
        tables.embedding_table[a] = eam.embedding(torch.full((points_rho,), a), density)[0]
    for row, (a, b) in enumerate(eam.pairs):
        tables.pair_table[row] = distance * eam.pair(a, b, distance.clamp(min=1e-9))[0]
        numbers = (atomic_numbers[eam.elements[kind]] for kind in (a, b))
        tables.pair_table[row, 0] = COULOMB * math.prod(numbers)  # limit of r ZBL(r)
    tables.e0.copy_(eam.e0)
    tables.report = dict(eam.report)
    return tables


def _highest_density(eam: EmbeddedAtom) -> float:
    """The density up to which F is tabulated; LAMMPS continues it as a straight line, other codes by their splines.

    That of an atom in a close packing with neighbours at 0.70 of the covalent sum, where the wall begins: a third of
    the ordinary volume, which takes hundreds of GPa. But not above 100, where densities are of order one in the data:
    the slope of F is there within 0.3 % of what it tends to, and the step stays small whatever a fit came to.
    """
    highest = 0.0
    for source in range(len(eam.elements)):
        for centre in range(len(eam.elements)):
            nearest = PACKED * eam.covalent_sum(source, centre)
            reach = math.ceil(2**0.5 * eam.cutoff / nearest)
            sites = np.indices([2 * reach + 1] * 3).reshape(3, -1) - reach
            sites = sites[:, sites.sum(0) % 2 == 0]  # face-centred cubic, neighbours at sqrt(2)
            distance = np.sqrt(0.5 * np.square(sites).sum(0)) * nearest
            neighbors = torch.from_numpy(distance[(distance > 0.0) & (distance < eam.cutoff)])
            highest = max(highest, float(eam.density(source, centre, neighbors)[0].sum()))
    return min(highest, HIGHEST)


def _size(name: str, points: int) -> int:
    if not FEWEST <= points <= MOST:
        how = "too coarse" if points < FEWEST else "too large"
        raise InputError(f"setfl tables of {name} = {points} points are {how}; use {FEWEST} to {MOST}")
    return points


def _check(tables: TabulatedEAM) -> None:
    for name, values in (
        ("pair", tables.pair_table),
        ("density", tables.density_table),
        ("embedding", tables.embedding_table),
    ):
        if not bool(torch.isfinite(values).all()):
            raise InputError(f"a {name} function is not finite everywhere; the potential that it comes from is damaged")
    if float(tables.density_table.min()) < 0 and "source" not in tables.report:
        raise InputError("a density is negative somewhere; other programs would misread the tables")
    end = (tables.points_r + 1) * tables.step_r  # what was read may be one step short, as published files are
    if end < tables.cutoff:
        raise InputError(f"the tables end at {end:g} Å, before the cutoff of {tables.cutoff:g} Å")


def _lines(tables: TabulatedEAM, *, include_e0: bool) -> Iterator[str]:
    elements, count = tables.elements, len(tables.elements)
    yield from _comments(tables, include_e0=include_e0)
    yield f"{count} {' '.join(elements)}"
    sizes = f"{tables.points_rho} {tables.step_rho:.17g} {tables.points_r} {tables.step_r:.17g}"
    yield f"{sizes} {tables.cutoff:.17g}"
    densities = tables.density_table.reshape(count, -1, tables.points_r)
    for a, symbol in enumerate(elements):
        yield f"{atomic_numbers[symbol]} {_mass_and_lattice(tables, symbol)}"
        yield from _table(tables.embedding_table[a])
        for values in densities[a]:
            yield from _table(values)
    for a in range(count):
        for b in range(a + 1):
            yield from _table(tables.pair_table[tables.pairs.index((b, a))])


def _comments(tables: TabulatedEAM, *, include_e0: bool) -> Iterator[str]:
    """Three lines; LAMMPS looks for UNITS in the first and refuses or converts where a script has others."""
    yield f"UNITS: metal  units metal (eV, Angstrom), eam/{tables.form}, by pretrain-mlip {pretrain_mlip.__version__}"
    if "source" in tables.report:
        source = f"from {tables.report['source']}, SHA-256 {tables.report['sha256']}: "
        yield source + " / ".join(line for line in tables.report["comments"] if line)
    else:
        yield f"fitted to data {tables.report.get('data_hash', 'unknown')}"
    references = " ".join(f"{symbol} {value:.10g}" for symbol, value in tables.reference_energies().items())
    yield f"E0 in eV: {references} ({'included in' if include_e0 else 'NOT included in'} the embedding functions)"


def _mass_and_lattice(tables: TabulatedEAM, symbol: str) -> str:
    """As in the file that the tables come from, otherwise ASE's."""
    kept = tables.report.get("element_lines", {}).get(symbol)
    if kept is not None:
        return kept
    number = atomic_numbers[symbol]
    state = reference_states[number] or {}
    return f"{atomic_masses[number]:.17g} {state.get('a', 0.0) or 0.0:.17g} {state.get('symmetry', 'none')}"


def _table(values: Tensor) -> Iterator[str]:
    numbers = np.asarray(values).tolist()
    for start in range(0, len(numbers), PER_LINE):
        yield " ".join(f"{value:.17g}" for value in numbers[start : start + PER_LINE])
