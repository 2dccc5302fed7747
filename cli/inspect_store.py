"""mass-serve inspect: what a store holds."""

from __future__ import annotations

from typing import Annotated

import typer

from mass_serve.cli.arguments import JsonOption, StoreArgument
from mass_serve.cli.failing import fail
from mass_serve.cli.store_summary import (
    MOST_TASKS_SHOWN,
    print_summary,
    warn_of_constant_routing,
    warn_of_distances,
    warn_of_unknown_mode,
)
from mass_serve.model_store.described_store import DescribedStore
from mass_serve.model_store.errors import StoreError
from mass_serve.model_store.next_store import find_next


def inspect(
    store: StoreArgument,
    every_task: Annotated[
        bool, typer.Option("--all", help=f"show all tasks, not the first {MOST_TASKS_SHOWN} alone")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Shows what a store holds, without reading its weights."""
    try:
        opened = DescribedStore.open(store)
        print_summary(opened, as_json, every_task, find_next(store))
    except StoreError as error:
        fail(error)
    warn_of_unknown_mode(opened.manifest)
    warn_of_distances(opened.manifest.tasks)
    warn_of_constant_routing(opened)


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("inspect")(inspect)
