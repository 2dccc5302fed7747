"""mass-serve check-config: what `serve` would be told, and whether it would start."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import typer

from mass_serve.cli.failing import EXIT_FAILED, fail
from mass_serve.cli.setting_flags import with_setting_flags
from mass_serve.model_store.errors import StoreError
from mass_serve.model_store.storage.files import without_credentials
from mass_serve.server.settings import Settings, SettingsError, load_settings, passed_over


def check_config(flags: dict[str, Any]) -> None:
    """Checks settings and what they name, as `serve` does: keys, certificate, device, extras, store.

    Prints the settings in force as a configuration file. Listens nowhere and loads nothing: it may run beside
    the server that is to have them. Ends with 2 for a bad setting, with 1 for a store that cannot be served.
    """
    from mass_serve.server.app import create_app
    from mass_serve.server.operation.logs import configure_logs
    from mass_serve.server.startup import store_source
    from mass_serve.server.web.process import need_descriptors

    try:
        settings = load_settings(flags)
        configure_logs(settings)
        source = store_source(settings)
        create_app(settings, source)
        need_descriptors(settings)
    except SettingsError as error:
        fail(error)
    for line in passed_over():
        typer.echo(line, err=True)
    try:
        revision = source.revision()
    except StoreError as error:
        fail(error, EXIT_FAILED)
    for line in settings_as_toml(settings):
        typer.echo(line)
    typer.echo(f"the settings are good; the store is at revision {revision}", err=True)


def settings_as_toml(settings: Settings) -> Iterator[str]:
    """Yields a line for each setting that has a value; JSON's values are TOML's.

    The user and password in a store's URL are left out: a unit's output goes into the system's log.
    """
    for name, value in settings.model_dump(mode="json", exclude={"config"}).items():
        if value is not None:
            yield without_credentials(f"{name} = {json.dumps(value, ensure_ascii=False)}")


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("check-config")(with_setting_flags(check_config, Settings, argument="store"))
