"""mass-serve verify: whether the files of a store are as they were written."""

from __future__ import annotations

import json

import typer

from mass_serve.cli.arguments import JsonOption, StoreArgument
from mass_serve.cli.failing import EXIT_FAILED, fail
from mass_serve.cli.progress_bars import progress_bars
from mass_serve.cli.store_summary import warn_of_unknown_mode
from mass_serve.model_store.errors import StoreError
from mass_serve.model_store.store import Store


def verify(store: StoreArgument, as_json: JsonOption = False) -> None:
    """Hashes every file of a store. Ends with 1 when one is damaged or missing."""
    try:
        opened = Store.open(store)
        with progress_bars() as progress:
            damaged = opened.verify(progress)
    except StoreError as error:
        fail(error)
    checked = len(opened.manifest.all_files())
    if as_json:
        typer.echo(json.dumps({"ok": not damaged, "files": checked, "damaged": damaged}))
    else:
        for sentence in damaged:
            typer.echo(f"error: {sentence}", err=True)
        typer.echo(f"{checked - len(damaged)} of {checked} files are as they were written")
    warn_of_unknown_mode(opened.manifest)
    if damaged:
        raise typer.Exit(EXIT_FAILED)


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("verify")(verify)
