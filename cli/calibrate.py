"""mass-serve calibrate: a store fitted to images or texts, whose tasks are known or not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mass_serve.cli.arguments import JsonOption, StoreArgument
from mass_serve.cli.failing import fail
from mass_serve.cli.progress_bars import progress_bars
from mass_serve.cli.store_summary import remind_to_sign
from mass_serve.evaluation.errors import EvaluationDataError
from mass_serve.model_store.errors import StoreError
from mass_serve.router.modes import PAPER
from mass_serve.server.settings import SettingsError, load_settings

if TYPE_CHECKING:
    from mass_serve.evaluation.calibrate import Calibrated


def calibrate(
    store: StoreArgument,
    data: Annotated[
        Path,
        typer.Argument(help="folder of images or texts, at any depth; or a file of texts", metavar="DATA"),
    ],
    unrouted: Annotated[
        float,
        typer.Option(min=0, max=0.5, help="share of them to be unrouted in the store's mode"),
    ] = 0.01,
    task_folders: Annotated[
        bool,
        typer.Option(
            "--task-folders",
            help="the names in DATA are tasks: DATA/<task>/*.png, or of texts DATA/<task>.jsonl",
        ),
    ] = False,
    labelled: Annotated[
        bool,
        typer.Option(
            "--labelled",
            help="those within are classes, too, as `eval` takes them: DATA/<task>/<class>/*.png, or of texts"
            " DATA/<task>.jsonl with labels",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Fits the search for the task to your images or texts, without labels; writes a new store revision.

    They should be like those that will be asked about, of every task. Names of files and folders
    are not looked at, nor labels, but with --task-folders or --labelled: then about 30 of each task are
    enough, and with fewer little is gained. A running server takes the new revision over by itself.
    """
    from mass_serve.evaluation.calibrate import calibrate as run_calibration
    from mass_serve.server.startup import store_source

    if not data.exists():
        fail(f"{data} does not exist")
    if task_folders and labelled:
        fail("--labelled says the tasks, too: leave --task-folders out")
    try:
        source = store_source(load_settings({"store": store}))
        with progress_bars() as progress:
            options = source.options
            result = run_calibration(
                source.url,
                data,
                unrouted,
                options.torch_device,
                progress,
                options.trusted_keys,
                task_folders=task_folders,
                labelled=labelled,
            )
    except (SettingsError, StoreError, EvaluationDataError, FloatingPointError) as error:
        fail(error)
    _print_json(result) if as_json else _print_lines(result)
    remind_to_sign(result.store)


def _print_json(result: Calibrated) -> None:
    typer.echo(
        json.dumps(
            {
                "store": result.store.files.url,
                "store_revision": result.store.manifest.store_revision,
                result.noun: result.inputs,
                f"{result.noun}_of": {name: round(count, 1) for name, count in result.inputs_of.items()},
                "unknown": result.unknown,
                "unrouted_below": result.unrouted_below,
                "mode": result.mode,
            }
        )
    )


def _print_lines(result: Calibrated) -> None:
    manifest = result.store.manifest
    typer.echo(f"{result.store.files.url}: revision {manifest.store_revision}, {result.inputs} {result.noun}")
    for name, count in result.inputs_of.items():
        too_few = ": too few, its evidence counts as before" if name in result.unknown else ""
        whose = f"{count:.0f} of them" if result.tasks_known else f"like {count:.0f} of them{too_few}"
        typer.echo(f"  {name}: {whose}")
    typer.echo(f"unrouted below a familiarity of {result.unrouted_below:.3f}, in mode {result.mode}")
    if manifest.router.mode == PAPER:
        typer.echo("the mode of this store is paper, which has nothing to calibrate: serve it in another")


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(calibrate)
