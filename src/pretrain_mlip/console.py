"""What a person sees while a command runs: log lines, progress bars, tables."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

T = TypeVar("T")
LOGGER = "pretrain_mlip"
NOTES_EVERY = 0.5  # seconds


def stderr() -> Console:
    """A console on standard error, made at each call so that a redirected stream is honoured."""
    return Console(stderr=True)


def is_first_process() -> bool:
    """Whether this process is alone, or the first of those that share a training: the others are silent."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"


def set_up_logging(level: int = logging.INFO) -> None:
    """Send this package's log to standard error: coloured on a terminal, plain lines elsewhere."""
    if not is_first_process():
        level = logging.CRITICAL
    logger = logging.getLogger(LOGGER)
    for handler in list(logger.handlers):
        if getattr(handler, "of_console", False):
            logger.removeHandler(handler)
    handler: logging.Handler
    if sys.stderr.isatty():
        handler = RichHandler(console=stderr(), show_path=False, show_level=False, omit_repeated_times=False)
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    handler.of_console = True  # type: ignore[attr-defined]  # marks what a second call may replace
    logger.addHandler(handler)
    logger.setLevel(level)


def log_to_file(path: Path) -> logging.Handler:
    """Append this package's log to a file as well; remove the handler with ``stop_logging``."""
    handler = logging.FileHandler(path, mode="a", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger(LOGGER)
    logger.addHandler(handler)
    if logger.level == logging.NOTSET:  # used as a library, without set_up_logging: the file is to tell the story
        logger.setLevel(logging.INFO)
    return handler


def stop_logging(handler: logging.Handler) -> None:
    logging.getLogger(LOGGER).removeHandler(handler)
    handler.close()


def quiet(library: str) -> None:
    """Leave only warnings of a library."""
    logging.getLogger(library).setLevel(logging.WARNING)


def progress_bar(*, drawn: bool = True) -> Progress:
    """A progress display on standard error; it draws nothing where that is not a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
        console=stderr(),
        transient=True,
        disable=not drawn
        or not sys.stderr.isatty()
        or multiprocessing.parent_process() is not None
        or not is_first_process(),
    )


def track(
    items: Iterable[T],
    description: str,
    total: int | None = None,
    *,
    note: Callable[[], str] = str,
    drawn: bool = True,
) -> Iterator[T]:
    """Yield the items and draw a progress bar while they are consumed; ``note`` says how things are, now and then."""
    if total is None and isinstance(items, Sequence):
        total = len(items)
    with progress_bar(drawn=drawn) as bar:
        task = bar.add_task(description, total=total, note="")
        written = 0.0
        for item in items:
            yield item
            bar.advance(task)
            if time.monotonic() - written > NOTES_EVERY:
                written = time.monotonic()
                bar.update(task, note=note())


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table whose first column is text and whose others are right-aligned."""
    result = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        result.add_column(column, justify="left" if number == 0 else "right", no_wrap=number == 0)
    for row in rows:
        result.add_row(
            *(
                value if isinstance(value, str) else f"{value:.4g}" if isinstance(value, float) else str(value)
                for value in row
            )
        )
    return result


def print_table(content: Table) -> None:
    """Print a table on standard output, wide enough not to be folded where that is a file."""
    console = Console() if sys.stdout.isatty() else Console(width=160)
    console.print(content)
