"""mass-serve group add, remove, list: names that stand for several tasks of a store."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from mass_serve.cli.arguments import JsonOption, StoreArgument
from mass_serve.cli.failing import fail
from mass_serve.cli.store_summary import group_lines, remind_to_sign
from mass_serve.model_store.errors import StoreError

if TYPE_CHECKING:
    from mass_serve.model_store.store import Store

GroupArgument = Annotated[str, typer.Argument(help="group, without its @", metavar="GROUP")]

commands = typer.Typer(
    help="Groups of a store's tasks, which requests name as @GROUP wherever they name tasks.",
    no_args_is_help=True,
)


@commands.command()
def add(
    store: StoreArgument,
    group: GroupArgument,
    tasks: Annotated[list[str], typer.Argument(help="tasks of the store", metavar="TASK...")],
    as_json: JsonOption = False,
) -> None:
    """Puts tasks into a group, which is made where there is none of that name."""
    from mass_serve.model_store.group_revisions import add_to_group

    _change(lambda: add_to_group(store, group, tasks), as_json)


@commands.command()
def remove(
    store: StoreArgument,
    group: GroupArgument,
    tasks: Annotated[
        list[str] | None, typer.Argument(help="tasks to take out of it (default: all)", metavar="[TASK...]")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Takes tasks out of a group, or the group out of a store; its tasks stay there."""
    from mass_serve.model_store.group_revisions import remove_from_group

    _change(lambda: remove_from_group(store, group, tasks or ()), as_json)


@commands.command("list")
def show(store: StoreArgument, as_json: JsonOption = False) -> None:
    """Shows the groups of a store and their tasks."""
    from mass_serve.model_store.store import Store

    try:
        _print(Store.open(store), as_json)
    except StoreError as error:
        fail(error)


def _change(change: Callable[[], Store], as_json: bool) -> None:
    """Runs a change and prints the groups that there are then."""
    try:
        store = change()
    except StoreError as error:
        fail(error)
    _print(store, as_json)
    remind_to_sign(store)


def _print(store: Store, as_json: bool) -> None:
    manifest = store.manifest
    if as_json:
        revision = manifest.store_revision
        typer.echo(
            json.dumps({"store": store.files.url, "store_revision": revision, "groups": manifest.groups})
        )
        return
    for line in group_lines(manifest) or [f"{store.files.url} has no groups"]:
        typer.echo(line)


def register(app: typer.Typer) -> None:
    """Adds the group of commands."""
    app.add_typer(commands, name="group")
