"""Arguments that several commands share."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ase import Atoms

    from pretrain_mlip.calculators.ase import PretrainedMLIP
    from pretrain_mlip.calculators.sources import Source

SETTINGS, OUTPUT = "Settings", "Output"
READABLE = "A checkpoint (.pt), eam.json, setfl tables (.alloy, .fs, .setfl), or an export (.ts.pt, .pt2)"
Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="YAML file with settings.", rich_help_panel=SETTINGS)
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Settings, such as cutoff=6 or md.timestep=0.5.", show_default=False),
]
Data = Annotated[str, typer.Argument(metavar="DATA", help="Structures: a file, or the name of an embedded data set.")]
Keys = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=KEY",
        help="Names of the labels where they are unusual, such as energy_key=dft_energy; also forces_key, stress_key, "
        "virials_key. May be repeated.",
    ),
]
Index = Annotated[int, typer.Option(help="Which structure of the file.")]
Potential = Annotated[Path, typer.Argument(metavar="POTENTIAL", help=f"{READABLE}.")]
AnyPotential = Annotated[
    Path | None,
    typer.Argument(metavar="[POTENTIAL]", help=f"{READABLE}; or --calculator.", show_default=False),
]
AnyPotentials = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[POTENTIAL]...", help=f"{READABLE}; several are compared.", show_default=False),
]
Calculator = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE:FUNCTION",
        help="In place of POTENTIAL: what returns an ASE calculator, as module:function or file.py:function.",
    ),
]
Elements = Annotated[
    str | None,
    typer.Option(
        metavar="Cu,O", help="Elements: those that --calculator supports, or only these of those a file supports."
    ),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, or auto for a GPU where there is one.")]
Dtype = Annotated[str | None, typer.Option(help="float32 or float64; the checkpoint's where not given.")]

Compile = Annotated[
    bool, typer.Option("--compile", help="Compile networks, which takes a minute and makes many calls faster.")
]
MemoryLimit = Annotated[
    float | None,
    typer.Option(metavar="GIB", help="Memory for intermediate results of a network; above it they are made in pieces."),
]
Products = Annotated[str, typer.Option(help="Precision of products in networks on a GPU: full, tf32 or bfloat16.")]


def refuse_options(options: Mapping[str, object], reason: str) -> None:
    """Raises InputError where options are given that would have no effect; None and False are not given."""
    from pretrain_mlip.errors import InputError

    if given := [name for name, value in options.items() if value not in (None, False)]:
        raise InputError(f"{', '.join(given)}: {', '.join(options)} {reason}")


def files_and_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Files, and settings: what looks like key=value and is no file."""
    overrides = [text for text in arguments if re.match(r"[A-Za-z_.]+=", text) and not Path(text).exists()]
    return [text for text in arguments if text not in overrides], overrides


def places_and_overrides(arguments: Sequence[str], calculator: str | None, *names: str) -> tuple[list[str], list[str]]:
    """Tell files from settings among arguments, where POTENTIAL may be missing.

    Args:
        arguments: of the command line, see ``files_and_overrides``.
        calculator: the option --calculator, in place of the first of the names.
        names: what the files are.

    Returns:
        Files in order of the names, and settings.

    Raises:
        InputError: there are too few or too many files.
    """
    from pretrain_mlip.errors import InputError

    wanted = names if calculator is None else names[1:]
    places, overrides = files_and_overrides(arguments)
    if len(places) != len(wanted):
        given = ", ".join(places) or "none"
        raise InputError(f"expected {' '.join(wanted)}{' with --calculator' if calculator else ''}, got {given}")
    return places, overrides


def read_data(
    source: str, *, require: tuple[str, ...] = ("energy", "forces"), keys: list[str] | None = None
) -> list[Atoms]:
    """Structures from a file, or an embedded data set by name; ``keys`` as ``Keys`` gives them."""
    from pretrain_mlip.settings import read_settings
    from pretrain_mlip.structures.datasets import read_data as read
    from pretrain_mlip.structures.labels import LabelKeys

    return read([source], require=require, keys=read_settings(LabelKeys, None, keys or []))


def load_calculator(path: Path, device: str, dtype: str | None, **options: Any) -> PretrainedMLIP:
    """The calculator of a potential; options as its constructor takes them."""
    from pretrain_mlip.calculators.ase import PretrainedMLIP

    return PretrainedMLIP.load(path, device=device, dtype=dtype, **options)


def find_source(
    potential: Path | None,
    calculator: str | None,
    elements: str | None,
    *,
    needs_elements: bool = False,
    **options: Any,
) -> Source:
    """What POTENTIAL, or --calculator and --elements name; options as ``PretrainedMLIP.load`` takes them.

    Raises:
        InputError: both are given, or none; see also ``source_of_file`` and ``source_of_function``.
    """
    from pretrain_mlip.calculators.sources import source_of_file, source_of_function
    from pretrain_mlip.errors import InputError

    if (potential is None) == (calculator is None):
        raise InputError("give either a POTENTIAL or --calculator module:function")
    symbols = [symbol.strip() for symbol in (elements or "").split(",") if symbol.strip()]
    if potential is not None:
        return source_of_file(potential, symbols, **options)
    if needs_elements and not symbols:
        raise InputError("--calculator needs --elements here, such as --elements Cu,O")
    return source_of_function(str(calculator), symbols)
