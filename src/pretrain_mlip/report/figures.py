"""The figures of the report about models: survival, parity, learning, temperatures.

Every function takes a section of results.json as plain dictionaries and gives back a matplotlib Figure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pretrain_mlip.report.style import (
    array,
    band,
    colour,
    display_name,
    label_outer,
    legend_above,
    line,
    ordered,
    panels,
    plain_log_ticks,
    styled,
)
from pretrain_mlip.report.words import number, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

Data = Mapping[str, Any]


@styled
def survival(section: Data) -> Figure:
    """Fraction of replicas still sound against time, with 95 % confidence bands.

    Args:
        section: ``survival`` or ``squeeze`` of results.json.
    """
    figure, (axes,) = panels(1, height=3.9)
    end = max(entry["summary"]["duration_ps"] for entry in section.values())
    for position, model in enumerate(ordered(section)):
        curve = {key: array(values) for key, values in section[model]["curve"].items()}
        time = np.append(curve["time"], end)
        steps = {key: np.append(curve[key], curve[key][-1]) for key in ("fraction", "low", "high")}
        axes.fill_between(time, steps["low"], steps["high"], step="post", **band(model, 0.10))
        # Equal curves would hide one another: each is lifted by a hair.
        lifted = steps["fraction"] + 0.004 * position
        label = f"{display_name(model)}  ({percent(section[model]['summary']['stable_fraction'])})"
        axes.step(time, lifted, where="post", **{**line(model), "label": label})
    axes.axhline(0.5, color="#999999", lw=0.8, ls=":")
    axes.set(xlabel="time (ps)", ylabel="fraction surviving", xlim=(0, end), ylim=(0, 1.06))
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0])
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), title="survived to the end", alignment="left")
    return figure


@styled
def temperatures(section: Data) -> Figure:
    """Kinetic temperature of every replica against time, a panel per model; a cross marks each failure.

    Args:
        section: ``survival`` or ``squeeze`` of results.json.
    """
    models = ordered(section)
    figure, all_axes = panels(len(models), height=2.2, shared=True)
    for model, axes in zip(models, all_axes, strict=True):
        for replica in section[model]["replicas"]:
            thermo = replica["thermo"]
            time, temperature = array(thermo["time_ps"]), array(thermo["temperature"])
            if time.size == 0:
                continue
            axes.plot(time, temperature, color=colour(model), lw=0.8, alpha=0.65)
            if replica["outcome"] != "completed":
                axes.plot(time[-1], temperature[-1], "x", color="#222222", ms=6, mew=1.4, zorder=3)
        target = max((r["thermo"] for r in section[model]["replicas"]), key=lambda t: len(t["time_ps"]))
        axes.plot(array(target["time_ps"]), array(target["target_temperature"]), color="#222222", lw=1, ls=":")
        end = section[model]["summary"]["duration_ps"]
        axes.set(title=display_name(model), xlim=(0, end))
    all_axes[0].set_ylim(0, None)
    label_outer(all_axes, "time (ps)", "temperature (K)")
    return figure


@styled
def parity(section: Data, quantity: str) -> Figure:
    """Predicted against reference values, a panel per model, on common axes.

    Args:
        section: ``parity`` of results.json.
        quantity: "energy" or "forces".
    """
    models = ordered(section)
    figure, all_axes = panels(len(models), height=2.9)
    everything = np.concatenate([array(section[model][quantity]["reference"]) for model in models])
    low, high = (float(np.min(everything)), float(np.max(everything))) if everything.size else (0.0, 1.0)
    margin = 0.06 * (high - low) or 0.1
    limits = (low - margin, high + margin)
    unit = "energy (eV/atom)" if quantity == "energy" else "force (eV/Å)"
    for model, axes in zip(models, all_axes, strict=True):
        x, y = (array(section[model][quantity][key]) for key in ("reference", "predicted"))
        outside = int(np.sum((y < limits[0]) | (y > limits[1])))
        axes.plot(limits, limits, color="#444444", lw=0.8)
        size, opacity = (3.2, 0.4) if x.size > 300 else (7, 0.7)
        axes.plot(x, y, ".", color=colour(model), ms=size, alpha=opacity, mew=0)
        if x.size:
            text = f"MAE {number(1000.0 * float(np.mean(np.abs(y - x))))} meV/{'atom' if quantity == 'energy' else 'Å'}"
            text += f"\n{outside} outside" if outside else ""
            axes.text(0.04, 0.95, text, transform=axes.transAxes, va="top", fontsize=8.5)
        axes.set(title=display_name(model), aspect="equal")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.set(xlim=limits, ylim=limits)
    label_outer(all_axes, f"DFT {unit}", f"predicted {unit}")
    return figure


@styled
def learning(section: Data) -> Figure:
    """Validation errors against gradient steps on DFT data (epochs where these are not known), logarithmic.

    Args:
        section: ``learning`` of results.json; what was only pretrained appears as a level.
    """
    figure, axes = panels(2, height=3.4)
    keys = {"val_forces_mae": "force MAE (meV/Å)", "val_energy_mae": "energy MAE (meV/atom)"}
    by_steps = any(array(entry["dft_steps"]).any() for entry in section.values())
    for (key, label), panel in zip(keys.items(), axes, strict=True):
        for model in ordered(section):
            _learning_line(panel, section[model], key, model, by_steps=by_steps)
        panel.set(yscale="log", xlabel="gradient steps on DFT data" if by_steps else "epoch", ylabel=label)
        plain_log_ticks(panel)
        panel.set_title(f"validation {label.split(' (')[0]}")
    legend_above(figure, axes[0])
    return figure


def _learning_line(axes: Axes, entry: Data, key: str, model: str, *, by_steps: bool) -> None:
    x, y = array(entry["dft_steps"] if by_steps else entry["epoch"]), array(entry[key])
    if y.size == 0 or not np.isfinite(y).any():
        return
    if by_steps and not (x.size and x.any()):
        level = axes.axhline(y[np.isfinite(y)][-1], **line(model))
        level.set_label(f"{display_name(model)} (last, on labels of the EAM)")
    else:
        axes.plot(x, y, **line(model))


@styled
def eam_fit(section: Data) -> Figure:
    """Convergence of the EAM fit: the fit to all frames, and its starts on a few frames.

    Args:
        section: ``convergence``, losses by iteration; ``starts``, the losses of each start, or its last one.
    """
    convergence = array(section["convergence"])
    starts = [np.atleast_1d(np.asarray(losses, dtype=float)) for losses in section["starts"]]
    figure, axes = panels(2 if len(starts) > 1 else 1)
    axes[0].plot(np.arange(1, convergence.size + 1), convergence, color=colour("eam"))
    axes[0].set(title="all frames", xlabel="iteration", ylabel="loss", yscale="log")
    plain_log_ticks(axes[0])
    if len(starts) > 1:
        best = min(range(len(starts)), key=lambda number: starts[number][-1])
        for number, losses in enumerate(starts):
            look = {"color": colour("eam"), "lw": 2.0} if number == best else {"color": "#B9AD9B", "lw": 1.0}
            axes[1].plot(np.arange(1, losses.size + 1), losses, marker="o" if losses.size == 1 else None, **look)
        axes[1].set(title="starts, on a few frames", xlabel="iteration", ylabel="loss", yscale="log")
        plain_log_ticks(axes[1])
    return figure
