"""mass-serve compact: the tasks of a store cut to its budget, without the models that they were made of."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.filesize import decimal

from mass_serve.cli.arguments import JsonOption, StoreArgument
from mass_serve.cli.failing import fail
from mass_serve.cli.progress_bars import progress_bars
from mass_serve.cli.store_summary import remind_to_sign
from mass_serve.engine.measuring import unknown_prices
from mass_serve.model_store.compacting import compact_store
from mass_serve.model_store.errors import StoreError
from mass_serve.model_store.store import Store


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
    try:
        before = Store.open(store)
        with progress_bars() as progress:
            after = compact_store(store, compression_ratio, progress, unknown_prices)
    except StoreError as error:
        fail(error)
    revisions = {task.name: task.revision for task in before.manifest.tasks}
    cut = [task.name for task in after.manifest.tasks if task.revision != revisions.get(task.name)]
    sizes = [task_bytes(one) for one in (before, after)]
    if as_json:
        content = {
            "store": after.files.url,
            "store_revision": after.manifest.store_revision,
            "cut": cut,
            "task_bytes": {"before": sizes[0], "after": sizes[1]},
        }
        typer.echo(json.dumps(content))
    else:
        typer.echo(
            f"{after.files.url}: revision {after.manifest.store_revision}, {after.layout.factoring.rule},"
            f" {len(cut)} of {len(revisions)} tasks cut, all of them {decimal(sizes[0])} before and"
            f" {decimal(sizes[1])} now"
        )
        if cut:
            typer.echo("earlier revisions stay until `mass-serve task prune`")
        if cut and before.manifest.calibration is not None:
            typer.echo("the calibration is of the blocks before: run `mass-serve calibrate` again", err=True)
    if after.manifest.store_revision != before.manifest.store_revision:
        remind_to_sign(after)


def task_bytes(store: Store) -> int:
    """What the current revisions of all tasks take."""
    return sum(store.files.size(path) for task in store.manifest.tasks for path in task.files)


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(compact)
