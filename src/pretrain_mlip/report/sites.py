"""Drawings of where structures failed: the atoms at fault, ringed, among their neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import atomic_numbers, covalent_radii
from ase.data.colors import jmol_colors
from matplotlib.collections import PatchCollection
from matplotlib.patches import Circle

from pretrain_mlip.report.style import display_name, ordered, panels, styled
from pretrain_mlip.report.words import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Data = Mapping[str, Any]
SHOWN = 4.5  # Å from the first atom at fault
RING = "#D0021B"


def first_failures(section: Data) -> dict[str, Data]:
    """Model -> the replica with a drawing that failed first."""
    found = {}
    for model in ordered(section):
        drawn = [replica for replica in section[model]["replicas"] if replica.get("site")]
        if drawn:
            found[model] = min(drawn, key=lambda replica: replica["time_ps"])
    return found


@styled
def failure_sites(replicas: Mapping[str, Data]) -> Figure:
    """One panel for each model: the first bad structure, seen along a direction in which atoms at fault do not overlap.

    Args:
        replicas: as ``first_failures`` gives them.
    """
    figure, all_axes = panels(len(replicas), height=3.0)
    for (model, replica), axes in zip(replicas.items(), all_axes, strict=True):
        _draw(axes, replica["site"])
        failure = replica["failure"]
        axes.set_title(f"{display_name(model)}, replica {replica['replica']}")
        what = f"{failure['check'].replace('_', ' ')} at {replica['time_ps']:.3g} ps"
        if failure["value"] is not None:
            what += f": {number(failure['value'])} {failure['unit']}"
        axes.text(0.0, -0.02, what, transform=axes.transAxes, va="top", fontsize=8.5)
    return figure


def _draw(axes: Axes, site: Data) -> None:
    positions, at_fault = np.array(site["positions"], dtype=float), set(site["at_fault"])
    centre = positions[sorted(at_fault)].mean(axis=0)
    seen = (positions - centre) @ _view(positions[sorted(at_fault)] - centre)
    numbers = [atomic_numbers[symbol] for symbol in site["symbols"]]
    circles, faces, edges, widths = [], [], [], []
    hidden_first = sorted(range(len(seen)), key=lambda place: (place in at_fault, seen[place, 2]))
    for place in hidden_first:  # the nearest last, and those at fault above all
        if np.linalg.norm(seen[place]) > SHOWN and place not in at_fault:
            continue
        nearness = float(np.clip(0.5 + seen[place, 2] / (2 * SHOWN), 0.0, 1.0))
        circles.append(Circle(tuple(seen[place, :2]), float(0.45 * covalent_radii[numbers[place]])))
        faces.append((1 - nearness) * 0.75 + (0.25 + 0.75 * nearness) * jmol_colors[numbers[place]] * 0.999)
        ringed = place in at_fault
        edges.append(RING if ringed else "#333333")
        widths.append(2.4 if ringed else 0.6)
    axes.add_collection(PatchCollection(circles, facecolors=np.clip(faces, 0, 1), edgecolors=edges, linewidths=widths))
    for place in at_fault:
        axes.annotate(site["symbols"][place], seen[place, :2], ha="center", va="center", fontsize=8, color="#111111")
    span = SHOWN + 0.5
    axes.plot([-span + 0.3, -span + 2.3], [-span + 0.2] * 2, color="#222222", lw=2)
    axes.text(-span + 1.3, -span + 0.35, "2 Å", ha="center", va="bottom", fontsize=8)
    axes.set(xlim=(-span, span), ylim=(-span, span), aspect="equal")
    axes.axis("off")


def _view(at_fault: np.ndarray) -> np.ndarray:
    """Axes of the drawing as columns: right, up, towards the reader. Atoms at fault lie as flat as they can."""
    frame = np.vstack([at_fault, 1e-6 * np.eye(3)])  # one atom alone is seen along z
    return np.linalg.svd(frame, full_matrices=True)[2].T
