"""Small pieces of Markdown that the generated pages share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

NOTE = "% Written from the code by docs/_ext; changes here are lost.\n"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells may hold Markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines) + "\n"


def code(text: str, language: str = "console") -> str:
    """A block of code."""
    return f"```{language}\n{text.rstrip()}\n```\n"


def page(*blocks: str) -> str:
    """Blocks with blank lines between."""
    return "\n".join([NOTE, *blocks])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
