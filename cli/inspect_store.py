"""mass-serve inspect: what a store holds."""

from __future__ import annotations

import typer

from mass_serve.cli.arguments import JsonOption, StoreArgument
from mass_serve.cli.failing import fail
from mass_serve.cli.store_summary import print_summary
from mass_serve.model_store.errors import StoreError
from mass_serve.model_store.store import Store


def inspect(store: StoreArgument, as_json: JsonOption = False) -> None:
    """Shows what a store holds, without reading its weights."""
    try:
        print_summary(Store.open(store), as_json)
    except StoreError as error:
        fail(error)


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("inspect")(inspect)
