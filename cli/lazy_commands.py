"""Commands whose modules are imported when they run: importing all of them takes seconds.

app = typer.Typer(cls=lazy_group({"serve": LazyCommand("mass_serve.cli.serve", "Serves a store over HTTP.")}))
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


@dataclass(frozen=True)
class LazyCommand:
    """A command, or a group of them, as the program's help shows it."""

    module: str  # has a function `register`, which adds it to a Typer
    help: str  # the first paragraph of its own
    # What is slow to import of what it runs with; no command needs that to tell its options.
    slow: str | None = "torch"

    def load(self, name: str) -> Any:
        """Imports the module and returns the command, which Typer has no public type for."""
        own = typer.Typer()
        import_module(self.module).register(own)
        return typer.main.get_group(own).commands[name]


def _resume_garbage_collection() -> None:
    """Where the program has put the search for garbage off, it begins, and leaves out what was imported.

    That stays for as long as the process does, and to search it would hold up whoever waits for an answer.
    """
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def lazy_group(commands: Mapping[str, LazyCommand]) -> type[TyperGroup]:
    """Makes a class of groups that have these commands, in this order."""

    class LazyGroup(TyperGroup):
        """Shows and completes the names of commands by what is known of them, and loads the one that runs."""

        def __init__(self, **given: Any) -> None:
            super().__init__(**given)
            self.commands.update({name: TyperCommand(name, help=one.help) for name, one in commands.items()})

        def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
            name, _, rest = super().resolve_command(ctx, args)
            if name is None:
                return None, None, rest
            command = commands[name].load(name)
            slow = commands[name].slow
            if slow is not None and not ctx.resilient_parsing and "--help" not in rest:
                import_module(slow)  # now, while garbage is not looked for
            _resume_garbage_collection()
            return name, command, rest

    return LazyGroup
