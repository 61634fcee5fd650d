"""The figures of the report about pairs of elements: dimers, the parts of the EAM, RDFs, pair distances."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pretrain_mlip.report.style import array, band, colour, label_outer, legend_above, line, ordered, panels, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Data = Mapping[str, Any]
LINEAR_BELOW = 5.0  # eV: wells are seen on a linear scale, walls on a logarithmic one


@styled
def dimers(section: Data, closest: Data | None = None) -> Figure:
    """Energy of isolated pairs against distance on a symmetric logarithmic axis: the well and the wall in one view.

    Args:
        section: ``dimers`` of results.json.
        closest: pair -> shortest distance trained on; left of it (shaded) a model has only its prior.
    """
    models = ordered(section)
    pairs = sorted({pair for curves in section.values() for pair in curves})
    figure, all_axes = panels(len(pairs), height=3.3, shared=True)
    for pair, axes in zip(pairs, all_axes, strict=True):
        for model in (m for m in models if pair in section[m]):
            curve = section[model][pair]
            axes.plot(array(curve["r"]), array(curve["energy"]), **line(model))
        first = min(array(section[m][pair]["r"])[0] for m in models if pair in section[m])
        shortest = (closest or {}).get(pair)
        if shortest is not None:
            axes.axvspan(first, shortest, color="#F1EFEA", lw=0, zorder=0)
            axes.axvline(shortest, color="#777777", lw=0.9, ls=":")
        axes.set(title=pair, xlim=(first, 5.0))
    low, high = _limits([curve for curves in section.values() for curve in curves.values()])
    first_axes = all_axes[0]
    first_axes.set_yscale("symlog", linthresh=LINEAR_BELOW, linscale=1.6)
    ticks = [tick for tick in (-1000, -100, -10, -5, -2.5, 0, 2.5, 5, 10, 100, 1000) if low <= tick <= high]
    first_axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    first_axes.minorticks_off()
    first_axes.set_ylim(low, high)
    label_outer(all_axes, "distance (Å)", "energy (eV)")
    legend_above(figure, all_axes[0])
    return figure


def _limits(curves: list[Data]) -> tuple[float, float]:
    """All of the wells, and the walls up to a thousand eV."""
    values = np.concatenate([array(curve["energy"]) for curve in curves])
    values = values[np.isfinite(values)]
    if values.size == 0:
        return -5.0, 5.0
    return float(np.clip(1.3 * values.min(), -1000.0, -2.0)), float(np.clip(1.5 * values.max(), 10.0, 2000.0))


@styled
def bonds(section: Data) -> Figure:
    """Energy while one bond of each pair is driven from half of its length to twice, among its neighbours.

    Args:
        section: model -> pair -> curve, as ``validation.bonds.scan_bonds`` gives them.
    """
    models = ordered(section)
    pairs = sorted({pair for found in section.values() for pair in found})
    figure, all_axes = panels(len(pairs), height=3.0)
    for pair, axes in zip(pairs, all_axes, strict=True):
        mine = [section[model][pair] for model in models if pair in section[model]]
        for model in (m for m in models if pair in section[m]):
            curve = section[model][pair]
            axes.plot(array(curve["r"]), array(curve["energy"]), **line(model))
        axes.axvline(mine[0]["length"], color="#777777", lw=0.9, ls=":")
        axes.set_yscale("symlog", linthresh=LINEAR_BELOW, linscale=1.6)
        lowest = min(float(np.nanmin(array(curve["energy"]))) for curve in mine)
        axes.set(title=pair, xlim=(mine[0]["r"][0], mine[0]["r"][-1]), ylim=(min(1.5 * lowest, -1.0), None))
        axes.minorticks_off()
    label_outer(all_axes, "distance (Å)", "energy (eV)")
    legend_above(figure, all_axes[0])
    return figure


@styled
def eam_decomposition(section: Data) -> Figure:
    """Parts of the EAM energy of a dimer.

    Args:
        section: ``eam_decomposition`` of results.json.
    """
    pairs = sorted(section)
    figure, all_axes = panels(len(pairs), height=3.0)
    looks = {
        "density": ("embedding (density)", "#0072B2", (0, (5, 1.5))),
        "pair": ("pair (Morse + ZBL)", "#D55E00", (0, (5, 1.5))),
        "atomic": ("atomic constants", "#999999", (0, (1, 1.5))),
        "total": ("total", "#000000", "solid"),
    }
    for pair, axes in zip(pairs, all_axes, strict=True):
        entry = {key: array(values) for key, values in section[pair].items()}
        for key, (label, tint, dash) in looks.items():
            # The constants are large and flat; what binds is the change against separated atoms.
            shown = entry[key] - entry[key][-1]
            axes.plot(entry["r"], shown, color=tint, ls=dash, label=label, lw=2.2 if key == "total" else 1.5)
        depth = max(0.3, *(-float(np.nanmin(entry[key] - entry[key][-1])) for key in ("density", "total")))
        axes.set(title=pair, ylim=(-1.3 * depth, 1.6 * depth))
        inside = np.flatnonzero(np.abs(entry["pair"] - entry["pair"][-1]) < 1.6 * depth)
        axes.set_xlim(max(0.0, float(entry["r"][inside[0]]) - 0.3) if inside.size else 0.0, float(entry["r"][-1]))
    label_outer(all_axes, "distance (Å)", "energy (eV)")
    legend_above(figure, all_axes[0])
    return figure


@styled
def rdf(section: Data) -> Figure:
    """g(r) of the DFT frames (black) and of the MD of each model, total and per pair.

    Args:
        section: ``rdf`` of results.json.
    """
    sources = {model: section["models"][model] for model in ordered(section["models"])}
    if section.get("reference"):
        sources = {"dft": section["reference"], **sources}
    pairs = sorted({pair for source in sources.values() for pair in source["partials"]})
    names = pairs if len(pairs) == 1 else [*pairs, "total"]
    figure, all_axes = panels(len(names), height=2.6)
    for name, axes in zip(names, all_axes, strict=True):
        for model, source in sources.items():
            g = source["total"] if name == "total" else source["partials"].get(name)
            if g is None:
                continue
            axes.plot(array(source["r"]), array(g), **line(model))
            if (error := source.get("errors", {}).get(name)) is not None:
                low, high = array(g) - array(error), array(g) + array(error)
                axes.fill_between(array(source["r"]), low, high, **band(model, 0.2))
        axes.axhline(1.0, color="#999999", lw=0.7, ls=":")
        axes.set(title=name, xlim=(0.5, None), ylim=(0, None))
    label_outer(all_axes, "distance (Å)", "g(r)")
    legend_above(figure, all_axes[0])
    return figure


@styled
def pair_distances(section: Data) -> Figure:
    """Pair distances of the DFT frames and of the perturbed structures, logarithmic.

    Args:
        section: ``pair_distances`` of results.json.
    """
    pairs = sorted(section)
    figure, all_axes = panels(len(pairs))
    for pair, axes in zip(pairs, all_axes, strict=True):
        r, before, after = (array(section[pair][key]) for key in ("r", "before", "after"))
        axes.fill_between(r, before, step="mid", color="#222222", alpha=0.30, lw=0, label="DFT frames")
        axes.step(r, after, where="mid", color=colour("pretrain"), lw=1.6, label="perturbed")
        axes.set(title=pair, yscale="log", xlim=(0, r[-1]))
        positive = np.concatenate([before, after])
        positive = positive[positive > 0]
        if positive.size:
            axes.set_ylim(0.5 * positive.min(), 2 * positive.max())
    label_outer(all_axes, "distance (Å)", "pairs / frame / Å")
    legend_above(figure, all_axes[0])
    return figure
