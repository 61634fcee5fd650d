"""What may be wrong with a data set, found before an hour of training is spent on it."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pretrain_mlip.console import table, track
from pretrain_mlip.errors import InputError
from pretrain_mlip.keys import CONFIG_TYPE, ENERGY, ISOLATED_ATOM, LABELS, SPLIT, STRESS
from pretrain_mlip.structures.distances import closest_distance
from pretrain_mlip.structures.io import labels_of, name_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ase import Atoms
    from rich.table import Table

MAX_FORCE = 100.0  # eV/Å; more is a wrong unit far more often than a real configuration
MAX_STRESS = 5.0  # eV/Å³ (800 GPa)
MAX_NET_FORCE = 0.1  # eV/Å; the forces on an isolated or periodic system sum to zero
MIN_DISTANCE = 0.5  # Å; H2 has 0.74
MAX_ENERGY_SPREAD = 5.0  # eV/atom between frames of one composition; atomisation of most solids costs 3 to 7
SAME = 1e-6  # Å, positions and cells that differ by less are the same
SHOWN = 3  # names given in a finding


@dataclass(frozen=True)
class Finding:
    """One thing that a check has found."""

    severity: Literal["error", "warning", "note"]
    check: str
    count: int  # frames concerned
    message: str
    frames: tuple[str, ...] = ()  # names of the first few


def check_structures(frames: Sequence[Atoms]) -> list[Finding]:
    """Run all checks; errors come first, then warnings, then notes."""
    per_frame: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for number, atoms in enumerate(track(frames, "Checking structures")):
        for name, detail in _troubles(atoms):
            per_frame[name].append((number, detail))
    findings = [_finding(frames, *_WORDS[name], name, hits) for name, hits in per_frame.items()]
    for check in (_duplicates, _missing_labels, _zero_forces, _rare_elements, _elements, _energy_spread):
        findings.extend(check(frames))
    return sorted(findings, key=lambda finding: ("error", "warning", "note").index(finding.severity))


def findings_table(findings: Iterable[Finding]) -> Table:
    """The findings for a person to read."""
    rows = [(f.severity, f.check, f.count or "", f.message, ", ".join(f.frames)) for f in findings]
    result = table("Data checks", ["severity", "check", "frames", "what", "first"], rows)
    for column in (1, 3, 4):
        result.columns[column].justify = "left"
    return result


def raise_on_errors(findings: Iterable[Finding]) -> None:
    """Stop where a finding is an error.

    Raises:
        InputError: with all errors on one line.
    """
    errors = [f"{f.message} ({f.count} frames; {f.frames[0]})" for f in findings if f.severity == "error"]
    if errors:
        raise InputError("; ".join(errors))


def summarise(frames: Sequence[Atoms]) -> dict[str, Any]:
    """Numbers that describe a data set, ready for JSON; None where nothing is known."""
    labels = [labels_of(atoms) for atoms in frames]
    sizes = [len(atoms) for atoms in frames]
    energies = [y.energy / size for y, size in zip(labels, sizes, strict=True) if y.energy is not None]
    forces = [float(np.linalg.norm(label.forces, axis=1).max()) for label in labels if label.forces is not None]
    volumes = [atoms.get_volume() / len(atoms) for atoms in frames if atoms.cell.rank == 3]
    elements = Counter(symbol for atoms in frames for symbol in atoms.symbols)
    return {
        "frames": len(frames),
        "atoms": {"min": min(sizes, default=0), "max": max(sizes, default=0), "total": sum(sizes)},
        "elements": dict(sorted(elements.items())),
        "config_types": _counts(frames, CONFIG_TYPE),
        "splits": _counts(frames, SPLIT),
        "labels": {key: sum(getattr(label, key) is not None for label in labels) for key in LABELS},
        "energy_per_atom": _range(energies),
        "max_force": max(forces, default=None),
        "volume_per_atom": _range(volumes),
    }


_WORDS: dict[str, tuple[Literal["error", "warning"], str]] = {
    "not finite": ("error", "positions, cell or labels are not finite"),
    "cell": ("error", "periodic directions without a cell vector, or a cell without volume; set pbc or the cell"),
    "force units": ("warning", f"UNITS? forces above {MAX_FORCE:g} eV/Å; they have to be in eV/Å"),
    "stress units": ("warning", f"UNITS? stress above {MAX_STRESS:g} eV/Å³; it has to be in eV/Å³ (not GPa or kbar)"),
    "net force": ("warning", f"forces that do not sum to zero (more than {MAX_NET_FORCE:g} eV/Å)"),
    "close pairs": ("warning", f"atoms closer than {MIN_DISTANCE:g} Å"),
}


def _finding(
    frames: Sequence[Atoms],
    severity: Literal["error", "warning"],
    message: str,
    name: str,
    hits: list[tuple[int, str]],
) -> Finding:
    shown = tuple(f"{name_of(frames[number], number)}{detail}" for number, detail in hits[:SHOWN])
    return Finding(severity, name, len(hits), message, shown)


def _troubles(atoms: Atoms) -> Iterable[tuple[str, str]]:
    """Names of the per-frame checks that one structure fails, each with the value at fault."""
    energy, forces, stress = labels_of(atoms)
    values = [atoms.positions, atoms.cell.array, *(v for v in (energy, forces, stress) if v is not None)]
    if not all(np.isfinite(value).all() for value in values):
        yield "not finite", ""
        return
    periodic = atoms.cell.array[atoms.pbc]
    if np.linalg.matrix_rank(periodic, tol=1e-3) < len(periodic):
        yield "cell", ""
    elif (distance := closest_distance(atoms, MIN_DISTANCE)) is not None:
        yield "close pairs", f" ({distance:.2f} Å)"
    if forces is not None:
        largest, net = np.linalg.norm(forces, axis=1).max(), np.linalg.norm(forces.sum(axis=0))
        if largest > MAX_FORCE:
            yield "force units", f" ({largest:.4g} eV/Å)"
        if net > MAX_NET_FORCE:
            yield "net force", f" ({net:.3g} eV/Å)"
    if stress is not None and np.abs(stress).max() > MAX_STRESS:
        yield "stress units", f" ({np.abs(stress).max():.4g} eV/Å³)"


def _duplicates(frames: Sequence[Atoms]) -> Iterable[Finding]:
    """Frames equal to an earlier one. A random projection finds the candidates, so this is n log n and not n²."""
    groups: dict[tuple[bytes, bytes], list[int]] = defaultdict(list)
    for number, atoms in enumerate(frames):
        groups[atoms.numbers.tobytes(), atoms.pbc.tobytes()].append(number)
    copies: list[tuple[int, str]] = []
    for members in groups.values():
        points = [np.concatenate([frames[m].positions, frames[m].cell.array]).ravel() for m in members]
        weights = np.random.default_rng(0).normal(size=len(points[0]))
        window = SAME * np.abs(weights).sum()
        values = np.array([weights @ point for point in points])
        distinct: list[int] = []  # places in members, by growing projection
        for place in np.argsort(values, kind="stable"):
            for other in reversed(distinct):
                if values[place] - values[other] > window:
                    distinct.append(place)
                    break
                if np.abs(points[place] - points[other]).max() <= SAME:
                    first, second = sorted((members[place], members[other]))
                    copies.append((second, f" = {name_of(frames[first], first)}"))
                    break
            else:
                distinct.append(place)
    if copies:
        yield _finding(
            frames, "warning", "equal to another frame (elements, cell, positions)", "duplicates", sorted(copies)
        )


def _missing_labels(frames: Sequence[Atoms]) -> Iterable[Finding]:
    for label in LABELS:
        expected = [
            number
            for number, atoms in enumerate(frames)
            if label == ENERGY
            or (atoms.info.get(CONFIG_TYPE) != ISOLATED_ATOM and (label != STRESS or atoms.cell.rank == 3))
        ]
        missing = [(number, "") for number in expected if getattr(labels_of(frames[number]), label) is None]
        if not missing:
            continue
        everywhere = len(missing) == len(expected)
        message = f"no {label} label in any frame" if everywhere else f"no {label} label in some of the frames"
        finding = _finding(frames, "warning", message, f"{label} labels", missing)
        yield replace(finding, severity="note") if everywhere and label == STRESS else finding


def _zero_forces(frames: Sequence[Atoms]) -> Iterable[Finding]:
    labelled = [f for atoms in frames if (f := labels_of(atoms).forces) is not None and len(atoms) > 1]
    if labelled and not any(forces.any() for forces in labelled):
        yield Finding("warning", "zero forces", len(labelled), "all forces are exactly zero; are they labels at all?")


def _rare_elements(frames: Sequence[Atoms]) -> Iterable[Finding]:
    places: dict[str, list[int]] = defaultdict(list)
    bulk = [number for number, atoms in enumerate(frames) if atoms.info.get(CONFIG_TYPE) != ISOLATED_ATOM]
    for number in bulk:
        for symbol in set(frames[number].symbols):
            places[symbol].append(number)
    for symbol, (first, *more) in sorted(places.items()):
        if not more and len(bulk) > 1:
            yield _finding(frames, "warning", f"{symbol} occurs in one frame only", "rare element", [(first, "")])


def _elements(frames: Sequence[Atoms]) -> Iterable[Finding]:
    counts = Counter(symbol for atoms in frames for symbol in set(atoms.symbols))
    message = ", ".join(f"{symbol} ({count})" for symbol, count in sorted(counts.items()))
    yield Finding("note", "elements", len(frames), f"elements (frames): {message or 'none'}")


def _energy_spread(frames: Sequence[Atoms]) -> Iterable[Finding]:
    energies: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for number, atoms in enumerate(frames):
        energy = labels_of(atoms).energy
        if energy is not None:
            formula = atoms.symbols.formula.reduce()[0]
            energies[f"{formula:hill}"].append((energy / len(atoms), number))
    for formula, values in energies.items():
        (low, _), (high, number) = min(values), max(values)
        if high - low > MAX_ENERGY_SPREAD:
            message = f"energies of {formula} spread over {high - low:.1f} eV/atom; units, or different methods?"
            yield Finding("note", "energy spread", len(values), message, (name_of(frames[number], number),))


def _counts(frames: Sequence[Atoms], key: str) -> dict[str, int]:
    counts = Counter(str(atoms.info[key]) for atoms in frames if key in atoms.info)
    return dict(sorted(counts.items()))


def _range(values: Sequence[float]) -> dict[str, float] | None:
    return {"min": float(min(values)), "max": float(max(values))} if values else None
