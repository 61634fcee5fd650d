"""``eos``, ``elastic``, ``phonons`` and ``vacancies``: properties of a crystal by a potential or any ASE calculator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from pretrain_mlip.cli.common import (
    OUTPUT,
    READABLE,
    Calculator,
    Device,
    Elements,
    Index,
    find_source,
    places_and_overrides,
    read_data,
)

if TYPE_CHECKING:
    from ase import Atoms
    from matplotlib.figure import Figure

Arguments = Annotated[
    list[str],
    typer.Argument(
        metavar="[POTENTIAL] STRUCTURE",
        help=f"{READABLE}; or --calculator. Then the crystal, in any format of ASE.",
        show_default=False,
    ),
]
Precision = Annotated[str, typer.Option(help="float64 or float32, of networks.")]


class Subject(NamedTuple):
    """A crystal and what computes its energies."""

    title: str
    atoms: Atoms
    calculator: Any


def eos(
    arguments: Arguments,
    calculator: Calculator = None,
    elements: Elements = None,
    index: Index = -1,
    span: Annotated[float, typer.Option(help="Largest change of the volume, as a share of it.")] = 0.1,
    points: Annotated[int, typer.Option(help="Number of volumes.")] = 11,
    relax: Annotated[bool, typer.Option(help="Relax first, and positions at each volume; else only scale.")] = True,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for eos.json and eos.png.", rich_help_panel=OUTPUT)
    ] = Path("eos"),
    device: Device = "auto",
    dtype: Precision = "float64",
) -> None:
    """Equation of state of a crystal: energies at volumes about equilibrium, bulk modulus.

    Example: pretrain-mlip eos best.pt quartz.cif
    Example: pretrain-mlip eos --calculator ase.calculators.emt:EMT copper.cif --span 0.05
    """
    from pretrain_mlip.report.crystals import equation_of_state as draw
    from pretrain_mlip.validation.properties.eos import equation_of_state

    subject = _subject(arguments, calculator, elements, index, device, dtype)
    found = equation_of_state(subject.atoms, subject.calculator, span=span, points=points, relaxed=relax)
    rows = [
        ["volume (Å³/atom)", f"{found['volume']:.4f}"],
        ["energy (eV/atom)", f"{found['energy']:.5f}"],
        ["bulk modulus (GPa)", f"{found['bulk_modulus']:.2f}"],
        ["its derivative by pressure", f"{found['bulk_modulus_derivative']:.2f}"],
        ["off the fit (meV/atom)", f"{found['residual']:.3f}"],
        ["one minimum", "yes" if found["single_minimum"] else "NO"],
    ]
    _write(output, "eos", subject, found, rows, draw(found, subject.title))


def elastic(
    arguments: Arguments,
    calculator: Calculator = None,
    elements: Elements = None,
    index: Index = -1,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for elastic.json.", rich_help_panel=OUTPUT)
    ] = Path("elastic"),
    device: Device = "auto",
    dtype: Precision = "float64",
) -> None:
    """Elastic constants of a crystal at 0 K, its moduli, and whether it is stable. Exit status 1 where it is not.

    Example: pretrain-mlip elastic best.pt quartz.cif
    """
    from pretrain_mlip.validation.properties.elastic import elastic_constants

    subject = _subject(arguments, calculator, elements, index, device, dtype)
    found = elastic_constants(subject.atoms, subject.calculator)
    names = [a + b for a, b in (("x", "x"), ("y", "y"), ("z", "z"), ("y", "z"), ("x", "z"), ("x", "y"))]
    rows = [
        [f"C {name} (GPa)", *(f"{value:.1f}" for value in row)]
        for name, row in zip(names, found["constants"], strict=True)
    ]
    for key in ("bulk_modulus", "shear_modulus"):
        words = ", ".join(f"{name} {value:.1f}" for name, value in found[key].items())
        rows.append([f"{key.replace('_', ' ')} (GPa)", words])
    rows.append(["stable", "yes" if found["stable"] else "NO"])
    _write(output, "elastic", subject, found, rows)
    if not found["stable"]:
        raise typer.Exit(1)


def phonons(
    arguments: Arguments,
    calculator: Calculator = None,
    elements: Elements = None,
    index: Index = -1,
    length: Annotated[float, typer.Option(help="Least width of the supercell, Å.")] = 12.0,
    displacement: Annotated[float, typer.Option(help="Of atoms, Å.")] = 0.01,
    relax: Annotated[bool, typer.Option(help="Relax positions and cell first, with their symmetry.")] = True,
    temperature: Annotated[float, typer.Option(help="Highest temperature of thermal properties, K.")] = 1000.0,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for phonons.json and phonons.png.", rich_help_panel=OUTPUT)
    ] = Path("phonons"),
    device: Device = "auto",
    dtype: Precision = "float64",
) -> None:
    r"""Phonons of a crystal: bands, density of states, thermal properties. Exit status 1 where modes are imaginary.

    Needs phonopy and seekpath: pip install 'pretrain-mlip\[properties]'.

    Example: pretrain-mlip phonons best.pt quartz.cif --length 15
    """
    from pretrain_mlip.report.crystals import phonons as draw
    from pretrain_mlip.validation.properties.phonons import phonons as compute

    subject = _subject(arguments, calculator, elements, index, device, dtype)
    found = compute(
        subject.atoms,
        subject.calculator,
        length=length,
        displacement=displacement,
        relaxed=relax,
        temperature=temperature,
    )
    rows = [
        ["space group", found["space_group"]],
        ["supercell", " x ".join(map(str, found["supercell"]))],
        ["displaced structures", str(found["displacements"])],
        ["acoustic modes at Γ, off zero (THz)", f"{found['acoustic_at_gamma']:.2g}"],
        ["lowest frequency (THz)", f"{found['lowest']:.3f}"],
        ["imaginary modes", "YES" if found["imaginary"] else "none"],
    ]
    _write(output, "phonons", subject, found, rows, draw(found, subject.title))
    if found["imaginary"]:
        raise typer.Exit(1)


def vacancies(
    arguments: Arguments,
    calculator: Calculator = None,
    elements: Elements = None,
    index: Index = -1,
    length: Annotated[float, typer.Option(help="Least width of the cell that holds a vacancy, Å.")] = 10.0,
    chemical_potential: Annotated[
        list[str] | None,
        typer.Option(
            "--mu",
            metavar="EL=EV",
            help="Energy in eV of an atom in its reservoir, which compounds need; may be repeated.",
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for vacancies.json.", rich_help_panel=OUTPUT)
    ] = Path("vacancies"),
    device: Device = "auto",
    dtype: Precision = "float64",
) -> None:
    r"""Energy of a vacancy on each kind of site of a crystal.

    Needs spglib: pip install 'pretrain-mlip\[properties]'.

    Example: pretrain-mlip vacancies eam.json nickel.cif
    Example: pretrain-mlip vacancies best.pt quartz.cif --mu O=-432.1 --mu Si=-107.3
    """
    from pretrain_mlip.validation.properties.vacancies import vacancies as compute

    subject = _subject(arguments, calculator, elements, index, device, dtype)
    given = _potentials(chemical_potential or [])
    found = compute(subject.atoms, subject.calculator, length=length, chemical_potentials=given)
    rows = [
        [f"{one['element']}, atom {one['site']} and {one['multiplicity'] - 1} like it", f"{one['energy']:.3f} eV"]
        for one in found
    ]
    _write(output, "vacancies", subject, {"vacancies": found}, rows)


def _potentials(words: list[str]) -> dict[str, float]:
    from pretrain_mlip.errors import InputError

    found = {}
    for word in words:
        element, _, value = word.partition("=")
        try:
            found[element.strip()] = float(value)
        except ValueError:
            raise InputError(f"--mu {word}: expected an element and eV, such as O=-432.1") from None
    return found


def _subject(
    arguments: list[str], calculator: str | None, elements: str | None, index: int, device: str, dtype: str
) -> Subject:
    from pretrain_mlip.errors import InputError

    places, strange = places_and_overrides(arguments, calculator, "POTENTIAL", "STRUCTURE")
    if strange:
        raise InputError(f"{strange[0]}: this command has no such settings; see --help")
    potential = Path(places[0]) if calculator is None else None
    source = find_source(potential, calculator, elements, device=device, dtype=dtype)
    frames = read_data(places[-1], require=())
    if not -len(frames) <= index < len(frames):
        raise InputError(f"{places[-1]}: there is no structure {index}; the file has {len(frames)}")
    atoms = frames[index]
    source.check([atoms], places[-1])
    return Subject(f"{atoms.get_chemical_formula('metal', empirical=True)}, {source.name}", atoms, source.make())


def _write(
    output: Path,
    name: str,
    subject: Subject,
    found: dict[str, Any],
    rows: list[list[str]],
    figure: Figure | None = None,
) -> None:
    from rich.table import Table

    from pretrain_mlip.console import print_table
    from pretrain_mlip.files import write_json

    write_json(output / f"{name}.json", {"subject": subject.title, **found})
    written = [output / f"{name}.json"]
    if figure is not None:
        from pretrain_mlip.report.style import save

        save(figure, output / f"{name}.png")
        written.append(output / f"{name}.png")
    shown = Table(title=subject.title, title_justify="left", show_header=False)
    for row in rows:
        shown.add_row(*row)
    print_table(shown)
    typer.echo(f"written: {', '.join(map(str, written))}")
