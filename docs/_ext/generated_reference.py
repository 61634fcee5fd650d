"""Sphinx extension: write the reference pages from the code, before anything is read.

commands.md from the command line, configuration.md from ``RunConfig``, strategies.md and networks.md from the tables
of strategies and networks, results.md from the schema of results.json, verification.md from the checks, and
study_tables.md, which another page includes, from the results of the study. They go to docs/reference/, which git
ignores.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from command_pages import commands_page
from settings_pages import configuration_page, networks_page, results_page, strategies_page
from study_pages import study_tables
from verification_pages import verification_page

import pretrain_mlip

if TYPE_CHECKING:
    from sphinx.application import Sphinx

PAGES = {
    "commands.md": commands_page,
    "configuration.md": configuration_page,
    "networks.md": networks_page,
    "results.md": results_page,
    "strategies.md": strategies_page,
    "study_tables.md": study_tables,
    "verification.md": verification_page,
}


def write_pages(app: Sphinx) -> None:
    """Write each page, unless it is there with this content: Sphinx then need not read it again."""
    folder = Path(app.srcdir) / "reference"
    folder.mkdir(exist_ok=True)
    for name, make in PAGES.items():
        path, content = folder / name, make()
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            path.write_text(content, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool | str]:
    """Register with Sphinx."""
    app.connect("builder-inited", write_pages)
    return {"version": pretrain_mlip.__version__, "parallel_read_safe": True}
