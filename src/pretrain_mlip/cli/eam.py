"""``fit-eam``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pretrain_mlip.cli.common import OUTPUT, Config, Data, Keys, Overrides, read_data


def fit_eam(
    data: Data,
    overrides: Overrides = None,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder for eam.json, the setfl file and figures.", rich_help_panel=OUTPUT),
    ] = Path("eam"),
    config: Config = None,
    keys: Keys = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Fit to every structure; none is held out for the table of errors.")
    ] = False,
) -> None:
    """Fit an embedded-atom potential and write it as eam.json and as setfl tables for LAMMPS.

    The audit of its curves says for every pair how high its wall is, where it turns, and where data end.
    setfl=FILE takes a published potential in place of a fit.

    Structures of another split than train (info 'split'), or a fifth of them where there is no split, are held out and
    tell what the fit is worth.

    Example: pretrain-mlip fit-eam silica.extxyz -o eam form=fs cutoff=6
    """
    from pretrain_mlip.console import print_table
    from pretrain_mlip.errors import InputError
    from pretrain_mlip.pipeline.preparation import audit_table, eam_table, fit_and_write_eam
    from pretrain_mlip.potentials.eam.settings import EAMSettings
    from pretrain_mlip.settings import read_settings
    from pretrain_mlip.structures.splits import Splits, split_structures

    settings = read_settings(EAMSettings, config, overrides or [])
    frames = read_data(data, keys=keys)
    if everything:
        splits = Splits(frames, [], [])
    else:
        try:
            splits = split_structures(frames)
        except InputError as error:
            raise InputError(f"{error}; or fit to all structures with --all") from None
    eam = fit_and_write_eam(splits, settings, output)
    print_table(eam_table(eam))
    print_table(audit_table(eam))
    names = ["eam.json", f"eam.eam.{eam.form}", "eam.png", *(["convergence.png"] if eam.report["loss"] else [])]
    typer.echo(f"written: {', '.join(str(output / name) for name in names)}")
