"""mass-serve convert: the blocks of a store in another format, without the models that they were made of."""

from __future__ import annotations

from typing import Annotated

import typer

from mass_serve.cli.arguments import JsonOption, StoreArgument
from mass_serve.cli.failing import fail
from mass_serve.cli.progress_bars import progress_bars
from mass_serve.cli.rewritten_tasks import print_rewritten
from mass_serve.model_store.errors import StoreError
from mass_serve.model_store.format.block_format_names import BlockFormat


def convert(
    store: StoreArgument,
    block_format: Annotated[BlockFormat, typer.Option("--format", help="how blocks are to be kept")],
    out: Annotated[
        str | None,
        typer.Option(help="new store: a folder or URL (default: new revisions in STORE)", metavar="STORE"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Keeps the blocks of a store in another format; the fine-tuned models are not needed.

    Every task gets a new revision, and a task that is added later is kept alike. A store may be served
    meanwhile. `task rollback` goes back until `task prune` deletes the earlier revisions.
    """
    from mass_serve.engine.measuring import unknown_measures
    from mass_serve.model_store.converting import convert_store
    from mass_serve.model_store.store import Store

    try:
        before = Store.open(store)
        with progress_bars() as progress:
            after = convert_store(store, block_format, out, progress, unknown_measures)
    except StoreError as error:
        fail(error)
    kept = after.layout.block_format
    print_rewritten(before, after, "converted", f"blocks {kept}", as_json, {"format": kept})


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(convert)
