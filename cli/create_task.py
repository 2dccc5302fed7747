"""mass-serve task create: a task learned from a handful of labelled images, on a CPU in minutes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mass_serve.cli.arguments import JsonOption, StoreArgument
from mass_serve.cli.failing import fail
from mass_serve.cli.progress_bars import progress_bars
from mass_serve.cli.store_summary import in_a_line, remind_to_sign
from mass_serve.evaluation.errors import EvaluationDataError
from mass_serve.model_store.errors import StoreError
from mass_serve.server.settings import SettingsError, load_settings

if TYPE_CHECKING:
    from mass_serve.evaluation.creation import Created


def create(
    store: StoreArgument,
    name: Annotated[str, typer.Argument(help="new task", metavar="NAME")],
    images: Annotated[
        Path,
        typer.Argument(help="folder of images in folders named as their classes", metavar="IMAGES"),
    ],
    replace: Annotated[bool, typer.Option("--replace", help="make a new revision of a task")] = False,
    head_alone: Annotated[
        bool,
        typer.Option("--head-alone", help="try no combination, which takes most of the time"),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Learns a task from a handful of labelled images, IMAGES/<class>/*.png; no fine-tuned model is needed.

    16 images of each class are a good number, 2 the least. It tries a head on the pretrained encoder, and
    one on a combination of what the store's tasks changed, and keeps what tells held-out images better. The
    task costs kilobytes. A running server takes it over by itself.
    """
    from mass_serve.evaluation.creation import create as run_creation
    from mass_serve.server.startup import store_source

    try:
        source = store_source(load_settings({"store": store}))
        options = source.options
        with progress_bars() as progress:
            created = run_creation(
                source.url,
                name,
                images,
                options.torch_device,
                progress,
                options.trusted_keys,
                replace=replace,
                head_alone=head_alone,
            )
    except (SettingsError, StoreError, EvaluationDataError) as error:
        fail(error)
    _print_json(created, name) if as_json else _print_lines(created, name)
    remind_to_sign(created.store)


def _print_json(created: Created, name: str) -> None:
    content = {
        "store": created.store.files.url,
        "store_revision": created.store.manifest.store_revision,
        "task": name,
        "revision": created.store.task(name).revision,
        "labels": created.labels,
        "images": created.images,
        "held_out_accuracy": {
            "guessing": round(created.chance, 4),
            "pretrained_encoder": round(created.plain, 4),
            "combination": None if created.combined is None else round(created.combined, 4),
        },
        "combination_of": created.others,
    }
    typer.echo(json.dumps(content))


def _print_lines(created: Created, name: str) -> None:
    typer.echo(f"{name}: {len(created.labels)} labels, {created.images:,} images; right of those held out:")
    typer.echo(f"  guessing                {created.chance:.3f}")
    typer.echo(f"  pretrained encoder      {created.plain:.3f}")
    if created.combined is None:
        typer.echo(f"  combination of tasks    not tried: {created.untried}")
    else:
        typer.echo(f"  combination of tasks    {created.combined:.3f}")
    others = f"a combination of {in_a_line(created.others)}"
    typer.echo(f"kept: {others if created.others else 'the pretrained encoder'}")
    manifest = created.store.manifest
    typer.echo(f"{created.store.files.url}: revision {manifest.store_revision}, {len(manifest.tasks)} tasks")


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(create)
