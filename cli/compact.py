"""mass-serve compact: the tasks of a store cut to its budget, without the models that they were made of."""

from __future__ import annotations

from typing import Annotated

import typer

from mass_serve.cli.arguments import JsonOption, StoreArgument
from mass_serve.cli.failing import fail
from mass_serve.cli.progress_bars import progress_bars
from mass_serve.cli.rewritten_tasks import print_rewritten
from mass_serve.model_store.errors import StoreError


def compact(
    store: StoreArgument,
    compression_ratio: Annotated[
        str | None,
        typer.Option(
            help="share of the rank that a task keeps at most, or N/T of T tasks (default: the store's rule,"
            " or 1/T)"
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Cuts the tasks of a store to its budget; their fine-tuned models are not needed.

    Every task that is cut gets a new revision, and one that keeps less already stays. `task rollback` goes
    back until `task prune` deletes the earlier revisions, and with them what was cut.
    """
    from mass_serve.engine.measuring import unknown_measures
    from mass_serve.model_store.compacting import compact_store
    from mass_serve.model_store.store import Store

    try:
        before = Store.open(store)
        with progress_bars() as progress:
            after = compact_store(store, compression_ratio, progress, unknown_measures)
    except StoreError as error:
        fail(error)
    print_rewritten(before, after, "cut", str(after.layout.factoring.rule), as_json)


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(compact)
