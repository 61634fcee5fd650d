"""One look for all figures: a colour per model, fonts, light grids; drawn through Figure objects, never pyplot."""

from __future__ import annotations

import math
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any, ParamSpec

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from pretrain_mlip.files import atomic_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

P = ParamSpec("P")
DPI = 130
WIDTH = 8.4  # inches
# Okabe and Ito's palette, distinct for the colour-blind; "dft" is whatever the truth is.
COLOURS = {
    "dft": "#000000",
    "eam": "#8C7A64",
    "vanilla": "#D55E00",
    "sam": "#E69F00",
    "pretrain": "#56B4E9",
    "finetune": "#0072B2",
    "replay": "#CC79A7",
    "delta": "#009E73",
}
NAMES = {"dft": "DFT", "eam": "EAM", "sam": "SAM"}
OTHERS = ("#7B4FA3", "#A6761D", "#666666", "#B2182B")
_given: ContextVar[Mapping[str, str]] = ContextVar("given", default=MappingProxyType({}))  # colours of unknown names
PLAIN_LINE: dict[str, Any] = {"ls": "solid", "zorder": 2.5, "lw": 1.8}
# Curves often coincide, and print may lack colour: truth and teacher lie beneath, broad; what only learned from the
# teacher is dashed, on top.
LINES: dict[str, dict[str, Any]] = {
    "dft": {"ls": "solid", "zorder": 2.0, "lw": 3.4},
    "eam": {"ls": "solid", "zorder": 2.1, "lw": 3.6, "alpha": 0.55},
    "pretrain": {"ls": (0, (5, 1.5)), "zorder": 3.0, "lw": 1.8},
}
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9.5,
    "axes.edgecolor": "#444444",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E6E8",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "figure.facecolor": "white",
}


def colour(model: str) -> str:
    """The colour of a model, the same in every figure; an unknown name gets one by its letters."""
    key = model.lower()
    if model in (given := _given.get()):
        return given[model]
    if key in COLOURS:
        return COLOURS[key]
    for known in ("replay", "delta", "sam", "finetune", "pretrain", "vanilla", "eam"):
        if known in key:
            return COLOURS[known]
    return OTHERS[sum(map(ord, key)) % len(OTHERS)]


@contextmanager
def distinct_colours(models: Iterable[str]) -> Iterator[None]:
    """Meanwhile no two of these models have the same colour, as long as there are enough; known names keep theirs."""
    unknown = [model for model in models if model.lower() not in COLOURS]
    taken = {COLOURS[model.lower()] for model in models if model.lower() in COLOURS} | {COLOURS["dft"]}
    free = [tint for tint in (*OTHERS, *COLOURS.values()) if tint not in taken]
    token = _given.set({model: free[place % len(free)] for place, model in enumerate(unknown)})
    try:
        yield
    finally:
        _given.reset(token)


def marked(model: str) -> str:
    """What a drawing calls that which it shows of one model; without any character that has a meaning there."""
    return f"model:{model.encode().hex()}"


def model_of(mark: str) -> str:
    """The model that ``marked`` was given."""
    return bytes.fromhex(mark.removeprefix("model:")).decode()


def line(model: str) -> dict[str, Any]:
    """Colour, dashes, width, order, label and mark of the curve of a model."""
    look = LINES.get(model.lower(), PLAIN_LINE)
    return {"color": colour(model), "label": display_name(model), "gid": marked(model), **look}


def band(model: str, opacity: float) -> dict[str, Any]:
    """Colour of what surrounds the curve of a model."""
    return {"color": colour(model), "alpha": opacity, "lw": 0, "gid": marked(model)}


def display_name(model: str) -> str:
    """How a model is written for people."""
    return NAMES.get(model.lower(), model)


def ordered(models: Iterable[str]) -> list[str]:
    """Models in the order of the story: the teacher, the baselines, the cure."""
    known = list(COLOURS)
    return sorted(models, key=lambda model: (known.index(model) if model in known else len(known), model))


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw in this style without touching anyone else's settings."""

    @wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return wrapper


def save(figure: Figure, path: str | Path) -> None:
    """Write a PNG, whole or not at all."""
    with atomic_path(path) as temporary, mpl.rc_context(STYLE):
        figure.savefig(temporary, dpi=DPI, format="png")


def save_svg(figure: Figure, stream: IO[str]) -> None:
    """Write an SVG whose words are text, the same at every call."""
    with mpl.rc_context({**STYLE, "svg.fonttype": "none", "svg.hashsalt": "pretrain-mlip"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})


def panels(count: int, columns: int = 3, height: float = 2.6, *, shared: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure with a grid of panels, always of the same width, so that the text has one size in all figures.

    Args:
        count: number of panels.
        columns: most panels in a row; four panels make two rows of two.
        height: of a row in inches.
        shared: all panels have the same y axis; only the first of each row is labelled.
    """
    columns = 2 if count == 4 else min(columns, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(WIDTH, height * rows), layout="constrained")
    axes: list[Axes] = []
    for index in range(count):
        axes.append(figure.add_subplot(rows, columns, index + 1, sharey=axes[0] if shared and axes else None))
        if shared and index % columns:
            axes[-1].tick_params(labelleft=False)
    return figure, axes


def label_outer(axes: Sequence[Axes], x: str, y: str) -> None:
    """Label every x axis, and the y axes of the first column."""
    for panel in axes:
        place = panel.get_subplotspec()
        panel.set_xlabel(x)
        if place is None or place.is_first_col():
            panel.set_ylabel(y)


def plain_log_ticks(axes: Axes) -> None:
    """1, 2, 5, 10, ... in place of powers of ten."""
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def legend_above(figure: Figure, axes: Axes) -> None:
    """One legend for all panels, above them."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper left", ncols=min(len(labels), 6))


def array(values: Sequence[float | None]) -> np.ndarray:
    """Numbers with NaN for what is missing."""
    return np.array([np.nan if value is None else value for value in values], dtype=float)
