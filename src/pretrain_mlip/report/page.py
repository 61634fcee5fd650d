"""report.html: one self-contained file for people, whatever it is about: a verdict, then pictures and tables.

Nothing is loaded from elsewhere. Curves are drawings in the page itself, with the model that each shows written on it,
so that the page can hide one model everywhere; pictures of very many points are PNGs.
"""

from __future__ import annotations

import base64
import io
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from pretrain_mlip.files import write_text
from pretrain_mlip.report.style import model_of, save, save_svg
from pretrain_mlip.report.tables import Cell, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)
FILE_NAME = "report.html"


@dataclass(frozen=True)
class Picture:
    """A figure of the report: drawn now, written to figures/<name>.png, shown with its caption."""

    name: str
    figure: Figure
    alt: str
    caption: str = ""
    points: bool = False  # so many that the page shows the PNG


@dataclass(frozen=True)
class Part:
    """A section of the report, in this order: text, pictures, tables."""

    title: str
    text: str = ""
    pictures: list[Picture] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    details: str = ""  # long text that is folded away


def write_page(
    folder: Path,
    *,
    title: str,
    subtitle: str,
    verdict: list[str],
    parts: list[Part],
    verdict_table: Table | None = None,
    missing: Sequence[str] = (),
) -> Path:
    """Write report.html, and its pictures into figures/; returns its path."""
    environment = Environment(
        loader=PackageLoader("pretrain_mlip", "report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    shown = [verdict_table, *(table for part in parts for table in part.tables)]
    text = environment.get_template("template.html.j2").render(
        title=title,
        subtitle=subtitle,
        verdict=verdict,
        verdict_table=verdict_table,
        parts=parts,
        missing=missing,
        models={cell.model: cell for table in shown if table for cell in _models(table)},
        draw=lambda picture: _draw(picture, folder / "figures"),
    )
    path = folder / FILE_NAME
    write_text(path, text)
    logger.info("report written to %s", path)
    return path


def _models(table: Table) -> Iterator[Cell]:
    return (cell for row in table.rows for cell in row if cell.model)


def _draw(picture: Picture, folder: Path) -> Markup:
    """Write the PNG, and give the element that shows the figure in the page."""
    path = folder / f"{picture.name}.png"
    save(picture.figure, path)
    if picture.points:
        content = base64.b64encode(path.read_bytes()).decode("ascii")
        return Markup('<img src="data:image/png;base64,{}" alt="{}">').format(content, picture.alt)
    text = io.StringIO()
    save_svg(picture.figure, text)
    return _inline(text.getvalue(), picture)


def _inline(svg: str, picture: Picture) -> Markup:
    """Of a drawing by matplotlib the element alone, its identifiers no other's on the page, its models named."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    box = "".join(re.findall(r'viewBox="[^"]*"', svg)[:1])
    inside = svg[svg.index(">") + 1 :]
    inside = re.sub(r'id="(model:[0-9a-f]+)"', lambda found: f'data-model="{escape(model_of(found[1]))}"', inside)
    inside = re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\g<1>{re.sub(r'[^a-zA-Z0-9]', '-', picture.name)}-", inside)
    start = f'<svg class="drawing" {box} role="img" aria-label="{escape(picture.alt)}">'
    return Markup(start + inside)  # noqa: S704  # names within it were escaped by matplotlib
