"""mass-serve convert: the blocks of a store in another format, without the models that they were made of."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.filesize import decimal

from mass_serve.cli.arguments import JsonOption, StoreArgument
from mass_serve.cli.compact import task_bytes
from mass_serve.cli.failing import fail
from mass_serve.cli.progress_bars import progress_bars
from mass_serve.cli.store_summary import remind_to_sign
from mass_serve.engine.measuring import unknown_prices
from mass_serve.model_store.converting import convert_store
from mass_serve.model_store.errors import StoreError
from mass_serve.model_store.format.block_formats import BlockFormat
from mass_serve.model_store.store import Store


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
    try:
        before = Store.open(store)
        with progress_bars() as progress:
            after = convert_store(store, block_format, out, progress, unknown_prices)
    except StoreError as error:
        fail(error)
    revisions = {task.name: task.revision for task in before.manifest.tasks}
    converted = [task.name for task in after.manifest.tasks if task.revision != revisions.get(task.name)]
    sizes = [task_bytes(one) for one in (before, after)]
    if as_json:
        content = {
            "store": after.files.url,
            "store_revision": after.manifest.store_revision,
            "format": after.layout.block_format,
            "converted": converted,
            "task_bytes": {"before": sizes[0], "after": sizes[1]},
        }
        typer.echo(json.dumps(content))
    else:
        typer.echo(
            f"{after.files.url}: revision {after.manifest.store_revision},"
            f" blocks {after.layout.block_format}, {len(converted)} of {len(revisions)} tasks converted,"
            f" all of them {decimal(sizes[0])} before and {decimal(sizes[1])} now"
        )
        if converted and out is None:
            typer.echo("earlier revisions stay until `mass-serve task prune`")
    if converted and before.manifest.calibration is not None:
        typer.echo("the calibration is of the blocks before: run `mass-serve calibrate` again", err=True)
    if out is None and converted:
        remind_to_sign(after)


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(convert)
