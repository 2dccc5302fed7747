"""A list in JSON whose items are printed as they come, as `json.dumps(items, indent=2)` would print all."""

from __future__ import annotations

import json
from textwrap import indent

import typer


class JsonList:
    """Prints the list's begin with its first item, and its end when that is known."""

    def __init__(self) -> None:
        self._is_empty = True

    def add(self, item: object) -> None:
        """Prints an item."""
        typer.echo("[" if self._is_empty else ",")
        typer.echo(indent(json.dumps(item, indent=2), "  "), nl=False)
        self._is_empty = False

    def end(self) -> None:
        """Prints the end."""
        typer.echo("[]" if self._is_empty else "\n]")
