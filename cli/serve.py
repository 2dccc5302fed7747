"""mass-serve serve: the HTTP service."""

from __future__ import annotations

import socket
from typing import Any

import structlog
import typer

from mass_serve.cli.failing import fail
from mass_serve.cli.setting_flags import with_setting_flags
from mass_serve.model_store.errors import StoreError
from mass_serve.server.settings import Settings, SettingsError, load_settings, passed_over


def serve(flags: dict[str, Any]) -> None:
    """Serves a store over HTTP.

    Every option can also be an environment variable (MASS_PORT=9000) or a line of --config (port = 9000).
    """
    from mass_serve.server.fronts.serving import prepared
    from mass_serve.server.operation.logs import configure_logs
    from mass_serve.server.startup import store_source

    try:
        settings = load_settings(flags)
        serves = prepared(settings, store_source(settings))
    except SettingsError as error:
        fail(error)
    configure_logs(settings)
    for line in passed_over():
        structlog.get_logger(__name__).warning(line)
    listeners = _listen_or_fail(settings)
    structlog.get_logger(__name__).info(
        "loading",
        store=settings.store or "the demo store",
        url=_url(listeners[0], settings),
        dtype=settings.engine_options.chosen_dtype,
    )
    try:
        code = serves(listeners)
    except (SettingsError, StoreError, ValueError, FloatingPointError) as error:
        fail(error)
    raise typer.Exit(code)


def _listen_or_fail(settings: Settings) -> list[socket.socket]:
    from mass_serve.server.fronts.listening import listen_together

    try:
        return listen_together(settings.host, settings.port, settings.front_ends)
    except OSError as error:
        fail(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror}; choose another --port"
        )


def _url(listener: socket.socket, settings: Settings) -> str:
    """Returns the address at which a browser finds the server."""
    host, port = listener.getsockname()[:2]
    scheme = "http" if settings.tls_cert is None else "https"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("serve")(with_setting_flags(serve, Settings, argument="store"))
