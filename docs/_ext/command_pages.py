"""The page of the command line, from the typer application itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer.main
from markdown import code, page, table

from pretrain_mlip.cli.main import app

NAME = "pretrain-mlip"
# The group of the configuration that the KEY=VALUE arguments of a command belong to; "" for all of it
GROUP_OF = {"fit-eam": "eam", "md": "stability.md", "perturb": "perturbation", "run": "", "train": ""}
STATUS = """Every command ends with status 0 when it did what was asked, 1 when something failed on the way (an MD run
that a check stopped, say), and 2 when the input or the usage is wrong; then one line on standard error names the file,
the frame or key, and the remedy. Progress bars are drawn on a terminal only. `-h` or `--help` explains each command."""


def commands_page() -> str:
    """Every command with its arguments, options and example."""
    root = typer.main.get_command(app)
    commands = list(_leaves(root, NAME))
    rows = [[f"[`{name}`](#{_slug(name)})", _summary(command)] for name, command in commands]
    overview = table(["command", "what it does"], rows)
    return page("# Commands\n", STATUS + "\n", overview, *(_section(name, command) for name, command in commands))


def _leaves(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    for key, inner in getattr(command, "commands", {}).items():
        if hasattr(inner, "commands"):
            yield from _leaves(inner, f"{name} {key}")
        else:
            yield f"{name} {key}", inner


def _section(name: str, command: Any) -> str:
    arguments = [p for p in command.params if not p.opts[0].startswith("-")]
    options = [p for p in command.params if p.opts[0].startswith("-") and not p.hidden]
    words = [name, "[OPTIONS]" if options else "", *(_metavar(p) for p in arguments)]
    blocks = [f"({_slug(name)})=\n## {name}\n"]
    for paragraph in (command.help or "").split("\n\n"):
        text, *examples = " ".join(paragraph.split()).split("Example: ")
        blocks += [text + "\n"] if text else []
        blocks += [code("\n".join(example.strip() for example in examples))] if examples else []
    blocks.append("Usage:\n\n" + code(" ".join(word for word in words if word), "text"))
    if arguments:
        blocks.append(table(["argument", "what"], [[f"`{_metavar(p)}`", p.help or ""] for p in arguments]))
    if any(p.name == "overrides" for p in arguments):
        group = GROUP_OF[name.removeprefix(NAME + " ")]  # a KeyError here: say which settings a new command takes
        anchor = group.replace(".", "-") or "top-level"
        without = f", written without `{group}.`" if group else ""
        blocks.append(f"The keys are [listed here](#settings-{anchor}){without}.\n")
    if options:
        blocks.append(table(["option", "default", "what"], [_option_row(p) for p in options]))
    return "\n".join(blocks)


def _option_row(option: Any) -> list[str]:
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    if option.required:
        return [names, "required", option.help or ""]
    unset = option.default is None or callable(option.default)
    value = {True: "yes", False: "no"}.get(option.default) if isinstance(option.default, bool) else option.default
    return [names, "" if unset else f"`{value}`", option.help or ""]


def _metavar(argument: Any) -> str:
    return argument.metavar or argument.name.upper()


def _summary(command: Any) -> str:
    return (command.help or "").split("\n\n")[0]


def _slug(name: str) -> str:
    return "command-" + name.removeprefix(NAME + " ").replace(" ", "-")
