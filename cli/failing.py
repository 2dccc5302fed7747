"""How commands fail: one line on standard error and an exit code, no traceback."""

from __future__ import annotations

from typing import NoReturn

import typer

from mass_serve.model_store.storage.files import without_credentials

EXIT_FAILED = 1
EXIT_USAGE = 2


def fail(text: object, code: int = EXIT_USAGE) -> NoReturn:
    """Ends the command."""
    typer.echo(without_credentials(f"error: {text}"), err=True)
    raise typer.Exit(code)
