"""The parameters of a fitted EAM by name and in physical units, and which of them a fit may move.

A name is that of a quantity and of what it belongs to: ``depth.O-Si`` (a pair, in either order), ``root.Si`` (an
element), ``decay.O`` (a source, form ``alloy``) or ``decay.O-Si`` (source O and centre Si, form ``fs``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import torch

from pretrain_mlip.errors import InputError
from pretrain_mlip.potentials.eam.embedded_atom import EmbeddedAtom
from pretrain_mlip.potentials.eam.form import EAM, FLAT, MORSE_START
from pretrain_mlip.potentials.eam.settings import EAMSettings

T = TypeVar("T")
MARGIN = 4.0  # how far a parameter may move from its starting value, mostly logarithms
STEEP_MARGIN = 2.0  # likewise, where more would overflow exponentials


class Quantity(NamedTuple):
    """A kind of parameter: where it is stored, what it belongs to, whether as a logarithm, how far a fit may go."""

    stored: str
    of: Literal["pair", "density", "element"]
    meaning: str
    margin: float = MARGIN
    logarithm: bool = True


QUANTITIES = {
    "depth": Quantity("log_depth", "pair", "D of the Morse function, eV"),
    "width": Quantity("log_width", "pair", "a of the Morse function, 1/Å", 0.7),
    "minimum": Quantity("log_minimum", "pair", "r0 of the Morse function, Å", STEEP_MARGIN),
    "amplitude": Quantity("log_amplitude", "density", "A, the exponential part at the covalent sum"),
    "decay": Quantity("log_decay", "density", "b of the exponential part, 1/Å", STEEP_MARGIN),
    "shell": Quantity("log_shell", "density", "B, height of the shell"),
    "shell_distance": Quantity("log_shell_distance", "density", "m, distance of the shell, Å", STEEP_MARGIN),
    "shell_width": Quantity("log_shell_width", "density", "v, width of the shell, Å", STEEP_MARGIN),
    "root": Quantity("log_root", "element", "k1 of the embedding function, eV"),
    "linear": Quantity("linear", "element", "k2 of the embedding function, eV", logarithm=False),
    "square": Quantity("log_square", "element", "k3 of the embedding function, eV"),
}


class Entry(NamedTuple):
    """One number of an EAM: its names, its kind, and what its logarithm is counted from."""

    names: tuple[str, ...]
    quantity: Quantity
    origin: float

    def stored(self, value: float) -> float:
        """A value in physical units as it is stored; nan where it is out of range."""
        if not self.quantity.logarithm:
            return value
        return float(np.log(value - self.origin)) if value > self.origin else float("nan")

    def physical(self, stored: float) -> float:
        return self.origin + float(np.exp(stored)) if self.quantity.logarithm else stored


def entries(eam: EAM) -> list[Entry]:
    """Every parameter of an EAM, in the order of ``get_values``."""
    found = []
    for stored, value in eam.named_parameters():
        name, quantity = next((n, q) for n, q in QUANTITIES.items() if q.stored == stored)
        for index in np.ndindex(*value.shape):
            origin = 0.0
            if name == "minimum":
                origin = MORSE_START * eam.covalent_sum(*eam.pairs[index[0]])
            elif name == "shell_distance":
                origin = FLAT[1] * eam.density_sum(*index)
            names = tuple(f"{name}.{label}" for label in _labels(eam, quantity.of, index))
            found.append(Entry(names, quantity, origin))
    return found


def _labels(eam: EAM, of: str, index: tuple[int, ...]) -> list[str]:
    kinds = eam.pairs[index[0]] if of == "pair" else index
    symbols = [eam.elements[kind] for kind in kinds]
    if of == "pair":
        return list(dict.fromkeys(("-".join(symbols), "-".join(symbols[::-1]))))
    return ["-".join(symbols)] if of == "density" and eam.form == "fs" else [symbols[0]]


def get_values(eam: EAM) -> np.ndarray:
    """All parameters as they are stored, one after the other."""
    return np.concatenate([value.detach().reshape(-1).numpy() for value in eam.parameters()])


def set_values(eam: EAM, values: np.ndarray) -> None:
    """Store parameters."""
    place = 0
    with torch.no_grad():
        for parameter in eam.parameters():
            part = torch.from_numpy(values[place : place + parameter.numel()].copy())
            parameter.copy_(part.reshape(parameter.shape))
            place += parameter.numel()


def get_gradient(eam: EAM) -> np.ndarray:
    """Derivatives by the stored parameters; zero where nothing depends on one."""
    return np.concatenate(
        [
            np.zeros(value.numel()) if value.grad is None else value.grad.reshape(-1).numpy()
            for value in eam.parameters()
        ]
    )


def named_values(eam: EAM) -> dict[str, float]:
    """Name -> value in physical units."""
    return {entry.names[0]: entry.physical(value) for entry, value in zip(entries(eam), get_values(eam), strict=True)}


def start_from(eam: EAM, earlier: EmbeddedAtom, source: str) -> None:
    """Take over the parameters of an earlier EAM of the same form, where their names agree.

    Raises:
        InputError: the earlier one is not a fitted EAM, or of another form, or has no element of this one.
    """
    if not isinstance(earlier, EAM) or earlier.form != eam.form:
        raise InputError(f"{source}: a warm start needs a fitted EAM of the form '{eam.form}'")
    common = [symbol for symbol in eam.elements if symbol in earlier.elements]
    if not common:
        raise InputError(f"{source}: has none of the elements {', '.join(eam.elements)}")
    values, known = named_values(earlier), entries(eam)
    stored = get_values(eam)
    for place, entry in enumerate(known):
        for name in entry.names:
            # a density of the form alloy is scaled by the largest of its pairs, which other elements may change
            if name in values and np.isfinite(entry.stored(values[name])):
                stored[place] = entry.stored(values[name])
    for symbol in common:
        eam.density_scale[eam.elements.index(symbol)] = earlier.density_scale[earlier.elements.index(symbol)]
    set_values(eam, stored)


class Freedom(NamedTuple):
    """What a fit may move: full vector = origin where ``group`` is -1, else the free number of that group.

    origin, low, high: (P,) stored values; group: (P,) index of a free number, -1 where the parameter is fixed.
    """

    origin: np.ndarray
    low: np.ndarray
    high: np.ndarray
    group: np.ndarray

    def full(self, free: np.ndarray) -> np.ndarray:
        full = self.origin.copy()
        moving = self.group >= 0
        full[moving] = free[self.group[moving]]
        return full

    def free(self, full: np.ndarray) -> np.ndarray:
        """One member of each group."""
        return full[[int(np.flatnonzero(self.group == number)[0]) for number in range(int(self.group.max()) + 1)]]

    def slope(self, gradient: np.ndarray) -> np.ndarray:
        """Derivatives by the free numbers."""
        moving = self.group >= 0
        return np.bincount(self.group[moving], gradient[moving], minlength=int(self.group.max()) + 1)

    def bounds(self) -> list[tuple[float, float]]:
        """Of the free numbers: what all members of a group allow."""
        groups = range(int(self.group.max()) + 1)
        members = [self.group == number for number in groups]
        return [(float(self.low[inside].max()), float(self.high[inside].min())) for inside in members]


def freedom(eam: EAM, settings: EAMSettings, start: np.ndarray | None = None) -> Freedom:
    """Origin, bounds and groups of the parameters of an EAM as it is now, with what the settings say.

    Bounds are margins about the origin, and about ``start`` (stored values) where a fit begins elsewhere.

    Raises:
        InputError: a name is not a parameter of this EAM, a value is out of range, or bounds exclude each other.
    """
    known = entries(eam)
    index = {name: place for place, entry in enumerate(known) for name in entry.names}
    origin = get_values(eam)
    margin = np.array([entry.quantity.margin for entry in known])
    start = origin if start is None else start
    low, high = np.minimum(origin, start) - margin, np.maximum(origin, start) + margin
    group = np.arange(len(known))

    for name, bounds in _flat(settings.bounds).items():
        place = _find(index, name, "bounds")
        low[place], high[place] = (_stored(known[place], value, f"bounds.{name}") for value in bounds)
        if not low[place] < high[place]:
            raise InputError(f"eam.bounds.{name}: the lower bound must be below the upper one, not {list(bounds)}")
    for names in settings.shared:
        places = [_find(index, name, "shared") for name in names]
        if len({(known[place].quantity, known[place].origin) for place in places}) > 1:
            raise InputError(
                f"eam.shared: {', '.join(names)}: only parameters of one kind can be shared, and distances only among "
                "pairs with equal covalent radii"
            )
        group[np.isin(group, group[places])] = group[places].min()
    origin = origin[group]  # a group is named after its first member
    for number in set(group.tolist()):
        low[group == number], high[group == number] = low[group == number].max(), high[group == number].min()
    values: dict[int, float] = {}
    for name, value in _flat(settings.fixed).items():
        place = _find(index, name, "fixed")
        stored = _stored(known[place], value, f"fixed.{name}")
        if values.setdefault(int(group[place]), stored) != stored:
            raise InputError(f"eam.fixed.{name}: the same parameter is fixed at another value")
        if name in _flat(settings.bounds) and not low[place] <= stored <= high[place]:
            raise InputError(f"eam.fixed.{name}: {value:g} is outside of its own bounds")
    for number, stored in values.items():
        origin[group == number] = stored
    group = np.where(np.isin(group, list(values)), -1, group)
    if (low >= high)[group >= 0].any():
        place = int(np.flatnonzero((low >= high) & (group >= 0))[0])
        raise InputError(f"eam.bounds: no value of {known[place].names[0]} is within the bounds of all that share it")
    numbers = {old: new for new, old in enumerate(sorted(set(group.tolist()) - {-1}))}
    return Freedom(
        np.where(group < 0, origin, np.clip(origin, low, high)),
        low,
        high,
        np.array([numbers.get(old, -1) for old in group.tolist()]),
    )


def _find(index: Mapping[str, int], name: str, option: str) -> int:
    if name not in index:
        raise InputError(f"eam.{option}: no parameter '{name}'; there are {', '.join(index)}")
    return index[name]


def _stored(entry: Entry, value: float, where: str) -> float:
    stored = entry.stored(value)
    if not np.isfinite(stored):
        raise InputError(f"eam.{where}: {value:g} is out of range; it must exceed {entry.origin:.4g}")
    return stored


def _flat(nested: Mapping[str, Mapping[str, T]]) -> dict[str, T]:
    return {f"{quantity}.{owner}": value for quantity, owners in nested.items() for owner, value in owners.items()}
