"""The program itself: its start, ``--help`` and ``--version``."""

from __future__ import annotations

import subprocess
import sys

from tests.cli.running import succeeds
from typer.main import get_command

from pretrain_mlip.cli.main import app


def test_as_a_program() -> None:
    """``python -m pretrain_mlip`` in a process of its own: the status reaches the shell, errors are one line."""
    start = [sys.executable, "-m", "pretrain_mlip"]
    done = subprocess.run([*start, "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()[0]) == (0, "pretrain-mlip")
    done = subprocess.run([*start, "scan", "absent.pt"], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr == "error: absent.pt: no such file\n"


def test_help_of_every_command_has_an_example() -> None:
    def commands(group, path=()):
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from commands(command, (*path, name))
            else:
                yield (*path, name), command

    found = list(commands(get_command(app)))
    assert {path[0] for path, _ in found} >= {
        "run",
        "fit-eam",
        "perturb",
        "label",
        "train",
        "resume",
        "evaluate",
        "md",
        "scan",
        "rdf",
        "datasets",
        "report",
        "export",
    }
    for path, command in found:
        assert f"Example: pretrain-mlip {' '.join(path)}" in (command.help or ""), path
        for parameter in command.params:
            assert getattr(parameter, "help", "x"), (path, parameter.name)


def test_help_is_fast_and_free_of_torch() -> None:
    code = "import sys, pretrain_mlip.cli.main; print('torch' in sys.modules, 'matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
    assert "pretrain-mlip 0." in succeeds("--version")
