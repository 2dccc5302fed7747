"""mass-serve serve: the HTTP service."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated

import structlog
import typer

from mass_serve.cli.failing import fail
from mass_serve.model_store.errors import StoreError
from mass_serve.server.app import create_app
from mass_serve.server.operation.logs import configure_logs
from mass_serve.server.settings import Settings, SettingsError, load_settings
from mass_serve.server.startup import store_source
from mass_serve.server.web.process import listen, run


def _help(name: str) -> str:
    """The settings describe themselves, once."""
    field = Settings.model_fields[name]
    default = "" if field.default is None or field.default_factory else f" (default: {field.default})"
    return f"{field.description}{default}"


def serve(
    store: Annotated[str | None, typer.Argument(help=_help("store"))] = None,
    config: Annotated[Path | None, typer.Option(help=_help("config"))] = None,
    store_poll_seconds: Annotated[float | None, typer.Option(help=_help("store_poll_seconds"))] = None,
    inference_keys_file: Annotated[Path | None, typer.Option(help=_help("inference_keys_file"))] = None,
    admin_keys_file: Annotated[Path | None, typer.Option(help=_help("admin_keys_file"))] = None,
    host: Annotated[str | None, typer.Option(help=_help("host"))] = None,
    port: Annotated[int | None, typer.Option(help=_help("port"))] = None,
    device: Annotated[str | None, typer.Option(help=_help("device"))] = None,
    dtype: Annotated[str | None, typer.Option(help=_help("dtype"))] = None,
    execution: Annotated[str | None, typer.Option(help=_help("execution"))] = None,
    mode: Annotated[str | None, typer.Option(help=_help("mode"))] = None,
    set_cache_bytes: Annotated[int | None, typer.Option(help=_help("set_cache_bytes"))] = None,
    num_threads: Annotated[int | None, typer.Option(help=_help("num_threads"))] = None,
    max_batch_images: Annotated[int | None, typer.Option(help=_help("max_batch_images"))] = None,
    batch_delay: Annotated[float | None, typer.Option(help=_help("batch_delay"))] = None,
    queue_images: Annotated[int | None, typer.Option(help=_help("queue_images"))] = None,
    decode_threads: Annotated[int | None, typer.Option(help=_help("decode_threads"))] = None,
    max_body_bytes: Annotated[int | None, typer.Option(help=_help("max_body_bytes"))] = None,
    max_held_bytes: Annotated[int | None, typer.Option(help=_help("max_held_bytes"))] = None,
    max_pixels: Annotated[int | None, typer.Option(help=_help("max_pixels"))] = None,
    max_images_per_request: Annotated[int | None, typer.Option(help=_help("max_images_per_request"))] = None,
    max_top_k: Annotated[int | None, typer.Option(help=_help("max_top_k"))] = None,
    request_timeout: Annotated[float | None, typer.Option(help=_help("request_timeout"))] = None,
    max_connections: Annotated[int | None, typer.Option(help=_help("max_connections"))] = None,
    client_timeout: Annotated[float | None, typer.Option(help=_help("client_timeout"))] = None,
    idle_timeout: Annotated[float | None, typer.Option(help=_help("idle_timeout"))] = None,
    hang_timeout: Annotated[float | None, typer.Option(help=_help("hang_timeout"))] = None,
    drain_seconds: Annotated[float | None, typer.Option(help=_help("drain_seconds"))] = None,
    tracing: Annotated[bool | None, typer.Option(help=_help("tracing"))] = None,
    log_level: Annotated[str | None, typer.Option(help=_help("log_level"))] = None,
    log_format: Annotated[str | None, typer.Option(help=_help("log_format"))] = None,
) -> None:
    """Serves a store over HTTP.

    Every option can also be an environment variable (MASS_PORT=9000) or a line of --config (port = 9000).
    """
    flags = dict(locals())  # every parameter is a setting of the same name
    try:
        settings = load_settings(flags)
        app = create_app(settings, store_source(settings))
    except SettingsError as error:
        fail(error)
    configure_logs(settings)
    listener = _listen_or_fail(settings)
    structlog.get_logger(__name__).info(
        "loading", store=settings.store or "the demo store", url=_url(listener)
    )
    try:
        code = run(app, settings, listener)
    except (StoreError, ValueError, FloatingPointError) as error:
        fail(error)
    raise typer.Exit(code)


def _listen_or_fail(settings: Settings) -> socket.socket:
    try:
        return listen(settings.host, settings.port)
    except OSError as error:
        fail(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror}; choose another --port"
        )


def _url(listener: socket.socket) -> str:
    """Where a browser finds the server."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("serve")(serve)
