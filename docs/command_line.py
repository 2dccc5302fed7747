"""Every command of `mass-serve` with its arguments and options, from the program itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from docs.markup import code, plain, table
from mass_serve.cli.app import COMMANDS

# The shell's completion is typer's own, and --help is everywhere.
NOT_SHOWN = {"help", "install_completion", "show_completion"}


def command_sections() -> str:
    """A section for each command."""
    sections = (_sections(one.load(name), f"mass-serve {name}") for name, one in COMMANDS.items())
    return "\n\n".join(section for own in sections for section in own)


def _sections(command: Any, name: str) -> Iterator[str]:
    commands = getattr(command, "commands", {})
    if not commands:
        yield _section(command, name)
    for child, of in commands.items():
        yield from _sections(of, f"{name} {child}")


def _section(command: Any, name: str) -> str:
    shown = [parameter for parameter in command.params if parameter.name not in NOT_SHOWN]
    usage = " ".join([name, *(_metavar(one) for one in shown if _is_argument(one)), "[OPTIONS]"])
    rows = [(_spelled(parameter), _help(parameter)) for parameter in shown]
    options = table(("argument or option", "meaning"), rows)
    return f"## {name}\n\n{plain(command.help)}\n\n```text\n{usage}\n```\n\n{options}"


def _is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


def _metavar(parameter: Any) -> str:
    """Returns what stands for a user's value; in brackets for an argument that may be left out."""
    if not _is_argument(parameter):
        return parameter.metavar or "VALUE"
    name = parameter.metavar or parameter.name.upper()
    return name if parameter.required else f"[{name}]"


def _spelled(parameter: Any) -> str:
    if _is_argument(parameter):
        return code(_metavar(parameter))
    names = "/".join((*parameter.opts, *parameter.secondary_opts))
    return code(names if parameter.is_flag else f"{names} {_metavar(parameter)}")


def _help(parameter: Any) -> str:
    told = parameter.help or ""
    if parameter.required and not _is_argument(parameter):
        return f"{told} (required)"
    if parameter.default in (None, False, "") or "default" in told:
        return told
    return f"{told} (default: {parameter.default})"
