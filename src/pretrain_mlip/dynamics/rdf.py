"""Radial distribution functions g(r) of trajectories, total and per pair of elements, and how much two differ.

Neighbouring frames of a trajectory resemble each other, so that errors come from averages over blocks of consecutive
frames (Flyvbjerg and Petersen, J. Chem. Phys. 91, 461 (1989)).
"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from pretrain_mlip import console
from pretrain_mlip.errors import InputError
from pretrain_mlip.structures.neighbors import find_pairs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ase import Atoms


@dataclass
class RDF:
    """Radial distribution functions averaged over frames.

    Attributes:
        r: centres of the bins in Å.
        total: g(r) of all atoms regardless of element.
        partials: g(r) per pair, named by its sorted symbols ("O-Si").
        coordination: centre -> neighbour element -> mean number of neighbours up to the outer edge of each bin.
        frames: number of frames.
        errors: standard errors of "total" and each pair; empty where there are not two blocks.
        blocks: means of blocks (blocks, bins) of "total" and each pair; not part of the JSON.
    """

    r: list[float]
    total: list[float]
    partials: dict[str, list[float]]
    coordination: dict[str, dict[str, list[float]]]
    frames: int
    errors: dict[str, list[float]] = field(default_factory=dict)
    blocks: dict[str, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        content = dataclasses.asdict(self)
        del content["blocks"]
        return content


class Deviation(NamedTuple):
    """How much two functions differ.

    Attributes:
        mae: mean over r of abs(g_a - g_b).
        error: its standard error by the jackknife over blocks of both; None where a function has not two blocks.
        noise: what ``mae`` is on average where the two differ by statistical errors alone; None likewise.
    """

    mae: float
    error: float | None
    noise: float | None


def radial_distribution(
    frames: Iterable[Atoms],
    r_max: float = 6.0,
    bins: int = 120,
    pairs: Sequence[str] | None = None,
    blocks: int = 5,
) -> RDF:
    """g(r) of periodic structures, which may be smaller than 2 r_max and change their volume.

    For a pair of elements A and B with N_A, N_B atoms in a volume V, g_AB = n_AB(r) V / (N_A N_B v(r)): n_AB counts the
    ordered pairs in a bin, periodic images included, and v is the volume of its shell. Then the mean number of B
    around A up to R is the integral of (N_B / V) g_AB 4 pi r² from 0 to R, for A = B as well.

    Args:
        frames: structures of any composition; a partial is averaged over the frames that have both elements.
        r_max: range in Å.
        bins: number of bins.
        pairs: pairs to keep, such as "Si-O" in any order; None keeps all.
        blocks: of consecutive frames, equally long but for one frame, that errors come from; one frame each where
            there are fewer.

    Raises:
        InputError: r_max, bins or blocks that make no sense, no frame, a frame that is not periodic in three
            directions, or a pair that no frame has.
    """
    if not 0.0 < r_max < np.inf or bins < 1 or blocks < 1:
        raise InputError(
            f"radial distribution: r_max {r_max:g} Å, {bins} bins, {blocks} blocks; all must be positive and finite"
        )
    edges = np.linspace(0.0, r_max, bins + 1)
    shells = 4.0 / 3.0 * np.pi * np.diff(edges**3)
    totals: list[np.ndarray] = []
    partials: dict[str, list[np.ndarray]] = {}
    neighbours: dict[tuple[str, str], list[np.ndarray]] = {}
    for index, atoms in enumerate(console.track(frames, "RDF")):
        _check_periodic(atoms, index)
        numbers, volume = atoms.numbers, float(atoms.cell.volume)
        first, second, distance = find_pairs("ijd", atoms, r_max)
        totals.append(np.histogram(distance, edges)[0] * volume / (len(atoms) ** 2 * shells))
        for a, b in itertools.product(np.unique(numbers), repeat=2):
            counts = np.histogram(distance[(numbers[first] == a) & (numbers[second] == b)], edges)[0]
            in_a, in_b = int(np.sum(numbers == a)), int(np.sum(numbers == b))
            centre, other = chemical_symbols[a], chemical_symbols[b]
            neighbours.setdefault((centre, other), []).append(np.cumsum(counts) / in_a)
            if centre <= other:
                g = counts * volume / (in_a * in_b * shells)
                partials.setdefault(f"{centre}-{other}", []).append(g)
    if not totals:
        raise InputError("radial distribution: no frame given")
    wanted = _wanted(pairs, partials)
    coordination: dict[str, dict[str, list[float]]] = {}
    for (centre, other), counts in sorted(neighbours.items()):
        if "-".join(sorted((centre, other))) in wanted:
            coordination.setdefault(centre, {})[other] = _mean(counts)
    means = {name: _block_means(partials[name] if name != "total" else totals, blocks) for name in ("total", *wanted)}
    return RDF(
        r=(0.5 * (edges[1:] + edges[:-1])).tolist(),
        total=_mean(totals),
        partials={pair: _mean(partials[pair]) for pair in wanted},
        coordination=coordination,
        frames=len(totals),
        errors={name: _standard_error(found).tolist() for name, found in means.items() if len(found) > 1},
        blocks=means,
    )


def rdf_deviations(a: RDF, b: RDF) -> dict[str, Deviation]:
    """How much two differ, in "total" and for each pair that both have.

    Raises:
        InputError: the two were made with different r_max or bins.
    """
    if not (len(a.r) == len(b.r) and np.allclose(a.r, b.r)):
        raise InputError("radial distribution: only functions with the same r_max and bins can be compared")
    result = {"total": _deviation(a, b, "total", a.total, b.total)}
    for pair in sorted(a.partials.keys() & b.partials.keys()):
        result[pair] = _deviation(a, b, pair, a.partials[pair], b.partials[pair])
    return result


def rdf_mae(a: RDF, b: RDF) -> dict[str, float]:
    """The differences alone, see ``rdf_deviations``."""
    return {name: found.mae for name, found in rdf_deviations(a, b).items()}


def _deviation(a: RDF, b: RDF, name: str, in_a: Sequence[float], in_b: Sequence[float]) -> Deviation:
    mae = float(np.mean(np.abs(np.subtract(in_a, in_b))))
    if name not in a.errors or name not in b.errors:
        return Deviation(mae, None, None)
    error = np.hypot(_jackknife(a.blocks[name], np.array(in_b)), _jackknife(b.blocks[name], np.array(in_a)))
    # Mean size of a normal variate is sqrt(2/pi) of its standard deviation
    noise = np.sqrt(2 / np.pi) * np.mean(np.hypot(a.errors[name], b.errors[name]))
    return Deviation(mae, float(error), float(noise))


def _jackknife(blocks: np.ndarray, other: np.ndarray) -> float:
    """Standard error of the mean absolute difference from another function, by leaving out a block at a time."""
    number = len(blocks)
    without = (blocks.sum(axis=0) - blocks) / (number - 1)
    found = np.abs(without - other).mean(axis=1)
    return float(np.sqrt((number - 1) / number * np.sum((found - found.mean()) ** 2)))


def _block_means(values: Sequence[np.ndarray], blocks: int) -> np.ndarray:
    return np.array([np.mean(block, axis=0) for block in np.array_split(np.array(values), min(blocks, len(values)))])


def _standard_error(means: np.ndarray) -> np.ndarray:
    return np.std(means, axis=0, ddof=1) / np.sqrt(len(means))


def _check_periodic(atoms: Atoms, index: int) -> None:
    if not atoms.pbc.all() or atoms.cell.rank < 3:
        raise InputError(
            f"radial distribution: frame {index} is not periodic in three directions, so that it has no density; "
            "give structures with a cell and pbc"
        )


def _wanted(pairs: Sequence[str] | None, found: Mapping[str, object]) -> list[str]:
    if pairs is None:
        return sorted(found)
    result = []
    for pair in pairs:
        symbols = pair.split("-")
        if len(symbols) != 2 or any(symbol not in atomic_numbers for symbol in symbols):
            raise InputError(f"radial distribution: '{pair}' is no pair of elements; write it like Si-O")
        name = "-".join(sorted(symbols))
        if name not in found:
            raise InputError(f"radial distribution: no frame has the pair {pair}; there are {', '.join(sorted(found))}")
        result.append(name)
    return sorted(set(result))


def _mean(values: Sequence[np.ndarray]) -> list[float]:
    return np.mean(values, axis=0).tolist()
