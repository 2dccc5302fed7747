"""mass-serve: the commands, put together."""

from __future__ import annotations

from typing import Annotated

import typer

from mass_serve import __version__
from mass_serve.cli import (
    batch,
    build_store,
    calibrate,
    check_config,
    classify,
    compact,
    compare,
    evaluate,
    export,
    group,
    head,
    inspect_store,
    next_revision,
    on_ray,
    serve,
    sign,
    task,
    verify_store,
)

app = typer.Typer(
    name="mass-serve",
    help="Serve many classifiers fine-tuned from one encoder behind one address.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for command in (
    serve,
    on_ray,
    check_config,
    classify,
    batch,
    evaluate,
    compare,
    export,
    calibrate,
    build_store,
    head,
    inspect_store,
    verify_store,
    sign,
    task,
    compact,
    next_revision,
    group,
):
    command.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mass-serve {__version__}")
        raise typer.Exit


@app.callback()
def options(
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="print the version and stop"),
    ] = False,
) -> None:
    """Serve many classifiers fine-tuned from one encoder behind one address."""


def main() -> None:
    """Runs the command that the arguments name."""
    app()
