"""Figures of properties of crystals: equation of state, phonons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from pretrain_mlip.report.style import WIDTH, display_name, label_outer, line, ordered, panels, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Data = Mapping[str, Any]
BLUE, RED = "#0072B2", "#D0021B"


@styled
def equation_of_state(found: Data, title: str) -> Figure:
    """Energies against volume with Birch and Murnaghan's curve through them.

    Args:
        found: as ``validation.properties.eos.equation_of_state`` gives it.
        title: of the figure.
    """
    figure = Figure(figsize=(0.62 * WIDTH, 3.4), layout="constrained")
    axes = figure.add_subplot()
    volumes, energies = np.array(found["volumes"]), np.array(found["energies"])
    v = np.linspace(volumes.min(), volumes.max(), 200)
    axes.plot(v, 1000 * (_birch_murnaghan(v, found) - found["energy"]), color=BLUE)
    axes.plot(volumes, 1000 * (energies - found["energy"]), "o", ms=4.5, color="#222222")
    text = f"V = {found['volume']:.3f} Å³/atom\nB = {found['bulk_modulus']:.1f} GPa"
    text += f"\nB' = {found['bulk_modulus_derivative']:.2f}"
    axes.text(0.5, 0.95, text, transform=axes.transAxes, ha="center", va="top", fontsize=9)
    axes.set(xlabel="volume (Å³/atom)", ylabel="energy (meV/atom)", title=title)
    return figure


def _birch_murnaghan(v: np.ndarray, found: Data) -> np.ndarray:
    """Birch, Phys. Rev. 71, 809 (1947); third order."""
    x = (found["volume"] / v) ** (2 / 3)
    modulus, slope = found["bulk_modulus"] / 160.21766208, found["bulk_modulus_derivative"]
    return found["energy"] + 9 / 16 * found["volume"] * modulus * ((x - 1) ** 3 * slope + (x - 1) ** 2 * (6 - 4 * x))


@styled
def phonons(found: Data, title: str) -> Figure:
    """Bands along the path through the zone, and the density of states; imaginary frequencies below zero, in red.

    Args:
        found: as ``validation.properties.phonons.phonons`` gives it.
        title: of the figure.
    """
    figure = Figure(figsize=(WIDTH, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(4, 1))
    _bands(left, found["bands"])
    frequencies, density = (np.array(found["dos"][key]) for key in ("frequencies", "density"))
    right.fill_betweenx(frequencies, density, color=BLUE, alpha=0.25, lw=0)
    right.plot(density, frequencies, color=BLUE, lw=1.2)
    right.set(xlabel="DOS (1/THz)", xlim=(0, None))
    left.set(ylabel="frequency (THz)", title=title)
    top, bottom = max(np.max(band["frequencies"]) for band in found["bands"]), min(0.0, found["lowest"])
    left.set_ylim(bottom - 0.03 * top, 1.05 * top)
    for axes in (left, right):
        axes.axhline(0, color="#444444", lw=0.8)
    if found["imaginary"]:
        left.text(0.01, 0.01, "imaginary", color=RED, transform=left.transAxes, va="bottom", fontsize=9)
    return figure


def by_path(section: Data) -> list[dict[str, Data]]:
    """Models with bands, apart where their relaxed cells have other paths through the zone."""
    groups: dict[tuple[tuple[str, ...], ...], dict[str, Data]] = {}
    for model in ordered(section):
        if section[model]["bands"]:
            path = tuple(tuple(band["labels"]) for band in section[model]["bands"])
            groups.setdefault(path, {})[model] = section[model]
    return list(groups.values())


@styled
def compared_bands(section: Data) -> Figure:
    """Bands of one crystal, a panel per model with those of the EAM beneath.

    Args:
        section: model -> ``phonons`` of results.json, all on one path.
    """
    reference = section.get("eam")
    models = [model for model in ordered(section) if model != "eam"] or ["eam"]
    figure, all_axes = panels(len(models), columns=2, height=3.2, shared=True)
    for model, axes in zip(models, all_axes, strict=True):
        pieces = section[model]["bands"]
        for number, piece in enumerate(pieces):
            if reference is not None and model != "eam":
                _modes(axes, piece, reference["bands"][number], "eam", lw=2.0)
            _modes(axes, piece, piece, model, lw=1.0)
        _path(axes, pieces)
        axes.axhline(0, color="#444444", lw=0.8)
        axes.set_title(display_name(model))
    label_outer(all_axes, "", "frequency (THz)")
    return figure


def _modes(axes: Axes, piece: Data, own: Data, model: str, *, lw: float) -> None:
    """One piece of the path by a model whose zone is not quite as large as that of the panel."""
    path = np.array(own["distances"])
    places = np.interp(path, (path[0], path[-1]), (piece["distances"][0], piece["distances"][-1]))
    axes.plot(places, np.array(own["frequencies"]), **{**line(model), "ls": "solid", "lw": lw})


def _bands(axes: Axes, bands: list[Data]) -> None:
    for band in bands:
        distances, frequencies = np.array(band["distances"]), np.array(band["frequencies"])
        for mode in frequencies.T:
            axes.plot(distances, mode, color=BLUE, lw=1.2)
            axes.plot(distances, np.where(mode < -0.05, mode, np.nan), color=RED, lw=1.6)
    _path(axes, bands)


def _path(axes: Axes, bands: list[Data]) -> None:
    """Names of the points of the zone beneath it."""
    ticks: list[tuple[float, str]] = []
    for band in bands:
        distances = band["distances"]
        for place, label in zip((distances[0], distances[-1]), band["labels"], strict=True):
            if ticks and np.isclose(ticks[-1][0], place):
                if label not in ticks[-1][1].split("|"):
                    ticks[-1] = (place, f"{ticks[-1][1]}|{label}")
            else:
                ticks.append((float(place), label))
    axes.set_xticks([place for place, _ in ticks], [label for _, label in ticks])
    axes.set_xlim(ticks[0][0], ticks[-1][0])
    axes.grid(visible=True, axis="x", color="#999999", lw=0.7)
