"""mass-serve compare: what flips where one store, or one revision of a store, takes another's place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mass_serve.cli.arguments import JsonOption
from mass_serve.cli.failing import EXIT_FAILED, fail
from mass_serve.cli.flips import (
    LIMIT_HELP,
    UnlabelledOption,
    both_engines,
    found_flips,
    limit_of,
    print_flips,
)
from mass_serve.evaluation.errors import EvaluationDataError
from mass_serve.model_store.errors import StoreError
from mass_serve.server.settings import SettingsError


def compare(
    before: Annotated[str, typer.Argument(help="store folder or URL", metavar="BEFORE")],
    after: Annotated[
        str, typer.Argument(help="store that would take its place, such as BEFORE#next", metavar="AFTER")
    ],
    data: Annotated[
        Path,
        typer.Argument(help="labelled inputs, as eval takes them, or any with --unlabelled", metavar="DATA"),
    ],
    unlabelled: UnlabelledOption = False,
    max_negative_flips: Annotated[
        str | None,
        typer.Option(
            help=f"end with 1 where more inputs turn from right to wrong: {LIMIT_HELP}", metavar="N|SHARE"
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Asks two stores about the same inputs, their tasks unknown, and says what flips, task by task.

    An answer is right where its task and its labels are and it is not unrouted. Settings other than the
    stores come from the environment (MASS_DEVICE, MASS_MODE, ...).
    """
    limit = None if max_negative_flips is None else limit_of(max_negative_flips)
    try:
        found = found_flips(both_engines(before, after), data, unlabelled)
    except (SettingsError, StoreError, EvaluationDataError, ValueError, FloatingPointError) as error:
        fail(error)
    if as_json:
        typer.echo(json.dumps(found.content))
    else:
        print_flips(found)
    if limit is not None and (complaint := limit.complaint(found.comparison)):
        fail(complaint, EXIT_FAILED)


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(compare)
