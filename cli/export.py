"""mass-serve export: one plain model out of a store."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mass_serve.cli.arguments import JsonOption, StoreArgument
from mass_serve.cli.failing import fail
from mass_serve.cli.progress_bars import progress_bars
from mass_serve.model_store.errors import StoreError
from mass_serve.model_store.mergeable import MERGEABLE_NAMES

if TYPE_CHECKING:
    from mass_serve.merging.methods import MergingMethod


def export(
    store: StoreArgument,
    out: Annotated[Path, typer.Option(help="new or empty folder", metavar="DIR")],
    task: Annotated[str | None, typer.Option(help="the model of this task", metavar="NAME")] = None,
    merged: Annotated[
        str | None,
        typer.Option(
            help=f"one model of all tasks, merged by {', '.join(MERGEABLE_NAMES)}", metavar="METHOD"
        ),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(help="of --merged: with the head of this task (default: no head)", metavar="TASK"),
    ] = None,
    coefficient: Annotated[
        float | None,
        typer.Option(help="of --merged: how far to go from the pretrained model (default: the method's)"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Writes a model that transformers loads: a task's own, or one that all tasks were merged into.

    It needs neither blocks nor a router, and gives the logits that a server gives for that task. Where
    transformers has no class with such a head, the head is a file beside the model, and a README says how
    logits come of both. Merging goes by the store's blocks: what they do not keep of a fine-tuning is not
    merged.
    """
    from mass_serve.model_store.exporting import merged_model, task_model
    from mass_serve.model_store.format.heads import HEAD_FILE
    from mass_serve.model_store.store import Store
    from mass_serve.model_store.writers import write_model
    from mass_serve.model_store.writers.new_folder import refuse_taken

    if (task is None) == (merged is None):
        fail("give either --task NAME or --merged METHOD")
    if merged is None and (head is not None or coefficient is not None):
        fail("--head and --coefficient are of --merged: a task has its own head, and its change as it is")
    if coefficient is not None and not math.isfinite(coefficient):
        fail(f"--coefficient must be a finite number, found {coefficient}")
    method = None if merged is None else _method(merged)
    try:
        refuse_taken(out)
        opened = Store.open(store)
        with progress_bars() as progress:
            if method is None:
                assert task is not None
                model = task_model(opened, task, progress)
            else:
                model = merged_model(opened, method, head, coefficient, progress)
        written = write_model(model, out)
    except StoreError as error:
        fail(error)
    if as_json:
        content = {"folder": str(out), "class": written.class_name, "head_file": written.head_file}
        typer.echo(json.dumps(content))
    else:
        beside = f", its head in {HEAD_FILE}: see README.md" if written.head_file else ""
        typer.echo(f"{out}: {written.class_name}{beside}")


def _method(name: str) -> MergingMethod:
    from mass_serve.model_store.merged_base import MERGEABLE

    if name not in MERGEABLE:
        fail(f"--merged {name!r} must be one of {', '.join(MERGEABLE)}")
    return MERGEABLE[name]


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(export)
