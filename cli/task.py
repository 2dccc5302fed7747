"""mass-serve task add, remove, rollback, thresholds, prune: a store changed, without its other models."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mass_serve.cli import choose_thresholds, create_task
from mass_serve.cli.arguments import JsonOption, StoreArgument
from mass_serve.cli.failing import fail
from mass_serve.cli.flips import LIMIT_HELP, UnlabelledOption, limit_of, print_flips
from mass_serve.cli.judged_change import Judge, not_activated
from mass_serve.cli.progress_bars import progress_bars
from mass_serve.cli.store_summary import (
    figures,
    in_a_line,
    remind_to_sign,
    warn_of_constant_routing,
    warn_of_distances,
)
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.errors import StoreError
from mass_serve.model_store.progress import Progress

if TYPE_CHECKING:
    from mass_serve.model_store.store import Store

NameArgument = Annotated[str, typer.Argument(help="task", metavar="NAME")]

commands = typer.Typer(
    help="Add, create, remove, roll back and prune the tasks of a store; their thresholds.",
    no_args_is_help=True,
)


@commands.command()
def add(
    store: StoreArgument,
    name: NameArgument,
    checkpoint: Annotated[
        str,
        typer.Argument(
            help="fine-tuned checkpoint: a path, hf:org/model[@revision] or a URL", metavar="MODEL"
        ),
    ],
    head: Annotated[
        str | None,
        typer.Option(help="head (default: head.safetensors in MODEL, or else its classifier)"),
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="JSON list (default: labels.json in MODEL, or else id2label)")
    ] = None,
    individual_accuracy: Annotated[float | None, typer.Option(help="of the model alone, 0 to 1")] = None,
    multi_label: Annotated[
        bool,
        typer.Option("--multi-label", help="inputs have any number of the labels (default: what MODEL says)"),
    ] = False,
    thresholds: Annotated[
        str | None,
        typer.Option(
            help="JSON object of labels and probabilities from which on they are given, 0.5 for others; of a"
            " task of any number of labels (default: thresholds.json in MODEL)"
        ),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="make a new revision of a task")] = False,
    allow_pickle: Annotated[bool, typer.Option("--allow-pickle", help="read .pt and .bin files")] = False,
    exact: Annotated[
        bool, typer.Option("--exact", help=BuildOptions.model_fields["exact"].description)
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="take it if implausibly far from the base, or an adapter of another"),
    ] = False,
    eval_data: Annotated[
        Path | None,
        typer.Option(
            help="labelled inputs of all tasks, as eval takes them: the store as it is and as it would be are"
            " asked about them before the new revision is activated",
            metavar="DATA",
        ),
    ] = None,
    unlabelled: UnlabelledOption = False,
    max_negative_flips: Annotated[
        str | None,
        typer.Option(
            help="with --eval-data: activate only where no more inputs turn from right to wrong;"
            f" {LIMIT_HELP} (default: 0)",
            metavar="N|SHARE",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Adds a task to a store; the fine-tuned models of its other tasks are not needed.

    Where the store would be beyond its budget, the other tasks are cut to it, a new revision each.
    """
    from mass_serve.engine.measuring import unknown_measures
    from mass_serve.model_store.recipes import ModelName, NamedTask, task_input
    from mass_serve.model_store.revisions import add_task, refuse_task

    judge = _judge(eval_data, unlabelled, max_negative_flips)
    named = NamedTask(
        name,
        ModelName(checkpoint),
        None if head is None else ModelName(head),
        None if labels is None else ModelName(labels),
        individual_accuracy,
        multi_label,
        None if thresholds is None else ModelName(thresholds),
    )

    def change(progress: Progress) -> Store:
        # Before anything is fetched: that can take long.
        refuse_task(store, name, replace)
        place = store if judge is None else judge.place_of_change(store)
        task = task_input(named, None, allow_pickle, progress)
        return add_task(place, task, replace, allow_pickle, progress, exact, force, unknown_measures)

    if judge is None:
        _change(change, as_json, name)
    else:
        _change_if_few_flip(store, judge, change, as_json, name)


@commands.command()
def remove(store: StoreArgument, name: NameArgument, as_json: JsonOption = False) -> None:
    """Takes a task out of a store; `rollback` brings it back until `prune`."""
    from mass_serve.model_store.revisions import remove_task

    _change(lambda progress: remove_task(store, name, progress), as_json)


@commands.command()
def rollback(store: StoreArgument, name: NameArgument, as_json: JsonOption = False) -> None:
    """Returns to a task's revision before the current one, or brings a removed task back."""
    from mass_serve.model_store.revisions import rollback_task

    _change(lambda progress: rollback_task(store, name, progress), as_json)


@commands.command()
def thresholds(
    store: StoreArgument,
    name: NameArgument,
    file: Annotated[
        Path,
        typer.Argument(
            help="JSON object of labels and probabilities from which on they are given, 0.5 for others",
            metavar="FILE",
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Gives a task of any number of labels other thresholds; its fine-tuned model is not needed."""
    from mass_serve.model_store.revisions import set_thresholds

    _change(lambda _: set_thresholds(store, name, file), as_json)


@commands.command()
def prune(store: StoreArgument, as_json: JsonOption = False) -> None:
    """Deletes earlier revisions and what interrupted writes left behind."""
    from mass_serve.model_store.revisions import prune_store
    from mass_serve.model_store.store import Store

    try:
        before = Store.open(store)
        deleted = prune_store(store)
        after = Store.open(store)
    except StoreError as error:
        fail(error)
    typer.echo(json.dumps({"deleted": deleted}) if as_json else f"{len(deleted)} files deleted")
    if after.manifest.store_revision != before.manifest.store_revision:
        remind_to_sign(after)


def _judge(data: Path | None, unlabelled: bool, limit: str | None) -> Judge | None:
    """Returns what a change is to be judged by; None where nobody asked for that."""
    if data is not None:
        return Judge(data, unlabelled, limit_of(limit or "0"))
    if unlabelled or limit is not None:
        fail("--unlabelled and --max-negative-flips are about --eval-data: give it, too")
    return None


def _change(change: Callable[[Progress], Store], as_json: bool, added: str | None = None) -> None:
    """Runs a change and prints what the store then is, and what was measured of an added task."""
    _print(_changed(change), as_json, added)


def _change_if_few_flip(
    url: str, judge: Judge, change: Callable[[Progress], Store], as_json: bool, added: str
) -> None:
    """Makes a change beside the store, prints what flips, and activates it unless too many do."""
    from mass_serve.model_store.next_revision import promote

    store = _changed(change)
    found = judge.flips(url)
    if not as_json:
        print_flips(found)
    complaint = judge.limit.complaint(found.comparison)
    if complaint is None:
        store = _changed(lambda _: promote(url, found.after))
    _print(store, as_json, added, {"flips": found.content, "activated": complaint is None})
    if complaint is not None:
        not_activated(url, complaint)


def _changed(change: Callable[[Progress], Store]) -> Store:
    try:
        with progress_bars() as progress:
            return change(progress)
    except StoreError as error:
        fail(error)


def _print(
    store: Store, as_json: bool, added: str | None = None, more: Mapping[str, object] | None = None
) -> None:
    """Prints what a store is after a change, and as JSON what `more` there is to say of that."""
    tasks = {task.name: task.revision for task in store.manifest.tasks}
    entry = None if added is None else store.task(added)
    if as_json:
        content: dict[str, object] = {
            "store": store.files.url,
            "store_revision": store.manifest.store_revision,
            "tasks": tasks,
        }
        if entry is not None:
            measured = ("distance", "energy_kept", "exit_price")
            content |= {name: getattr(entry, name) for name in measured}
        typer.echo(json.dumps(content | dict(more or {})))
    else:
        if entry is not None:
            typer.echo(f"{entry.name}: {figures(entry)}")
        listed = in_a_line([f"{name} ({revision})" for name, revision in tasks.items()])
        rule = store.layout.factoring.rule
        typer.echo(f"{store.files.url}: revision {store.manifest.store_revision}, {rule}, tasks {listed}")
    if entry is not None:
        warn_of_distances([entry])
        warn_of_constant_routing(store)
    remind_to_sign(store)


def register(app: typer.Typer) -> None:
    """Adds the group of commands."""
    create_task.register(commands)
    choose_thresholds.register(commands)
    app.add_typer(commands, name="task")
