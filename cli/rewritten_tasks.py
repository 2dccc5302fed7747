"""What commands say that write a store's tasks anew from what is stored of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import typer
from rich.filesize import decimal

from mass_serve.cli.store_summary import remind_to_sign

if TYPE_CHECKING:
    from mass_serve.model_store.store import Store


def print_rewritten(
    before: Store,
    after: Store,
    done: str,
    kept_as: str,
    as_json: bool,
    more: Mapping[str, object] | None = None,
) -> None:
    """Prints which tasks were rewritten, to which `done` is done, and what all of them take now.

    `kept_as` says what they are like now, and `more` is for JSON. What the user has to do then is said, too.
    """
    revisions = {task.name: task.revision for task in before.manifest.tasks}
    tasks = [task.name for task in after.manifest.tasks if task.revision != revisions.get(task.name)]
    sizes = [_task_bytes(one) for one in (before, after)]
    if as_json:
        content = {
            "store": after.files.url,
            "store_revision": after.manifest.store_revision,
            **(more or {}),
            done: tasks,
            "task_bytes": {"before": sizes[0], "after": sizes[1]},
        }
        typer.echo(json.dumps(content))
    else:
        typer.echo(
            f"{after.files.url}: revision {after.manifest.store_revision}, {kept_as},"
            f" {len(tasks)} of {len(revisions)} tasks {done}, all of them {decimal(sizes[0])} before and"
            f" {decimal(sizes[1])} now"
        )
    if tasks and before.manifest.calibration is not None:
        typer.echo("the calibration is of the blocks before: run `mass-serve calibrate` again", err=True)
    is_same = after.files.url == before.files.url
    if is_same and after.manifest.store_revision != before.manifest.store_revision:
        if tasks and not as_json:
            typer.echo("earlier revisions stay until `mass-serve task prune`")
        remind_to_sign(after)


def _task_bytes(store: Store) -> int:
    """What the current revisions of all tasks take."""
    return sum(store.files.size(path) for task in store.manifest.tasks for path in task.files)
