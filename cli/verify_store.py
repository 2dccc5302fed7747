"""mass-serve verify: the files of a store held to its manifest, and the manifest to its signature."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mass_serve.cli.arguments import JsonOption, StoreArgument
from mass_serve.cli.failing import EXIT_FAILED, fail
from mass_serve.cli.progress_bars import progress_bars
from mass_serve.cli.store_summary import warn_of_unknown_mode
from mass_serve.engine.options import EngineOptions
from mass_serve.model_store.errors import StoreError
from mass_serve.server.settings import SettingsError, load_settings

TRUSTED = EngineOptions.model_fields["trusted_keys"]


def verify(
    store: StoreArgument,
    trusted_keys: Annotated[Path | None, typer.Option(help=f"{TRUSTED.description}", metavar="FILE")] = None,
    as_json: JsonOption = False,
) -> None:
    """Reads every file of a store. Ends with 1 when one is damaged, missing or holds unusable numbers.

    Which keys are trusted can also be said by MASS_TRUSTED_KEYS, as for a server.
    """
    from mass_serve.model_store.store import Store

    try:
        settings = load_settings({"trusted_keys": trusted_keys})
        opened = Store.open(store, settings.trusted_keys)
        with progress_bars() as progress:
            damaged = opened.verify(progress)
    except (SettingsError, StoreError) as error:
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
