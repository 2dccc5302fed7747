"""mass-serve build, inspect, verify: stores made and looked at."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.table import Column, Table

from mass_serve.cli import task as task_commands
from mass_serve.cli.failing import EXIT_FAILED, fail
from mass_serve.cli.progress_bars import progress_bars
from mass_serve.evaluation import EvaluationDataError, with_individual_accuracies
from mass_serve.model_store.build import build as build_store
from mass_serve.model_store.build import refuse_taken
from mass_serve.model_store.errors import StoreError
from mass_serve.model_store.format.manifest import FirstPass
from mass_serve.model_store.plan import BuildOptions, TaskInput
from mass_serve.model_store.store import Store
from mass_serve.router import ModeName

Value = TypeVar("Value")
StoreArgument = Annotated[str, typer.Argument(help="store folder or URL", metavar="STORE")]
JsonOption = Annotated[bool, typer.Option("--json", help="print the result as JSON")]


def build(
    pretrained: Annotated[Path, typer.Option(help="CLIP checkpoint before fine-tuning", metavar="PATH")],
    task: Annotated[list[str], typer.Option(help="a fine-tuned checkpoint; repeat", metavar="NAME=PATH")],
    out: Annotated[str, typer.Option(help="new store: a folder or URL", metavar="STORE")],
    head: Annotated[
        list[str] | None,
        typer.Option(help="head (default: head.safetensors in the task's PATH)", metavar="NAME=PATH"),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            help="JSON list of classes (default: labels.json in the task's PATH)", metavar="NAME=FILE"
        ),
    ] = None,
    individual_accuracy: Annotated[
        list[str] | None, typer.Option(help="of the fine-tuned model alone, 0 to 1", metavar="NAME=F")
    ] = None,
    compression_ratio: Annotated[
        float | None, typer.Option(help="share of the rank kept per task (default: 1 / tasks)")
    ] = None,
    mode: Annotated[
        ModeName, typer.Option(help="how much computing the search for the task is worth (see the README)")
    ] = "exact",
    router_layer: Annotated[
        int | None, typer.Option(help="block that routes, from 0 (default: three quarters of the depth)")
    ] = None,
    router_token: Annotated[Literal["class", "mean"], typer.Option(help="feature that is routed")] = "class",
    temperature: Annotated[float, typer.Option(help="of the routing coefficients")] = 1.0,
    threshold: Annotated[float, typer.Option(help="coefficient above which a task is kept")] = 0.2,
    top_k: Annotated[int, typer.Option(help="most tasks kept per image")] = 3,
    head_choice: Annotated[
        Literal["max", "mean", "router"], typer.Option(help="how the winning head is chosen")
    ] = "max",
    first_pass: Annotated[
        FirstPass | None,
        typer.Option(help="weights of the first pass (default: pretrained; with --mode paper merged_base)"),
    ] = None,
    patch_embedding: Annotated[
        Literal["factored", "averaged"], typer.Option(help="how the patch convolution is kept")
    ] = "factored",
    block_dtype: Annotated[
        Literal["bfloat16", "float16", "float32"], typer.Option(help="dtype of the singular blocks")
    ] = "bfloat16",
    merged_base: Annotated[
        Literal["auto", "stored", "rebuilt"],
        typer.Option(help="stored, or rebuilt at load; auto: what is quicker"),
    ] = "auto",
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="read .pt and .bin checkpoints")
    ] = False,
    eval_data: Annotated[
        Path | None,
        typer.Option(help="measure individual accuracies on DATA/<task>/<class>/*.png|jpg", metavar="DATA"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Builds a store from a pretrained encoder and the models fine-tuned from it.

    A build that was interrupted goes on where it stopped when the same command is given again.
    """
    options = BuildOptions(
        compression_ratio=compression_ratio,
        mode=mode,
        router_layer=router_layer,
        router_token=router_token,
        temperature=temperature,
        threshold=threshold,
        top_k=top_k,
        head_choice=head_choice,
        first_pass=first_pass,
        patch_embedding=patch_embedding,
        block_dtype=block_dtype,
        merged_base=merged_base,
        allow_pickle=allow_pickle,
    )
    tasks = _task_inputs(task, head or [], labels or [], individual_accuracy or [])
    try:
        with progress_bars() as progress:
            if eval_data is not None:
                refuse_taken(out)
                tasks = with_individual_accuracies(pretrained, tasks, options, eval_data, progress)
            store = build_store(pretrained, tasks, out, options, progress)
    except (StoreError, EvaluationDataError) as error:
        fail(error)
    _print_summary(store, as_json)


def inspect(store: StoreArgument, as_json: JsonOption = False) -> None:
    """Shows what a store holds, without reading its weights."""
    try:
        _print_summary(Store.open(store), as_json)
    except StoreError as error:
        fail(error)


def verify(store: StoreArgument, as_json: JsonOption = False) -> None:
    """Hashes every file of a store. Ends with 1 when one is damaged or missing."""
    try:
        opened = Store.open(store)
        with progress_bars() as progress:
            damaged = opened.verify(progress)
    except StoreError as error:
        fail(error)
    checked = len(opened.manifest.all_files())
    if as_json:
        typer.echo(json.dumps({"ok": not damaged, "files": checked, "damaged": damaged}))
    else:
        for sentence in damaged:
            typer.echo(f"error: {sentence}", err=True)
        typer.echo(f"{checked - len(damaged)} of {checked} files are as they were written")
    if damaged:
        raise typer.Exit(EXIT_FAILED)


def _task_inputs(
    tasks: Sequence[str], heads: Sequence[str], labels: Sequence[str], accuracies: Sequence[str]
) -> list[TaskInput]:
    """The tasks of a build. A name given twice stays twice: the build refuses it with its own sentence."""
    given = [_pair("--task", text, Path) for text in tasks]
    names = {name for name, _ in given}
    head_of = _by_name("--head", heads, names, Path)
    labels_of = _by_name("--labels", labels, names, Path)
    accuracy_of = _by_name("--individual-accuracy", accuracies, names, float)
    return [
        TaskInput(name, path, head_of.get(name), labels_of.get(name), accuracy_of.get(name))
        for name, path in given
    ]


def _by_name(
    flag: str, texts: Sequence[str], names: set[str], convert: Callable[[str], Value]
) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for name, value in (_pair(flag, text, convert) for text in texts):
        if name not in names:
            fail(f"{flag} {name}: there is no --task {name}")
        if name in values:
            fail(f"{flag} {name} is given twice")
        values[name] = value
    return values


def _pair(flag: str, text: str, convert: Callable[[str], Value]) -> tuple[str, Value]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        fail(f"{flag} {text!r} must have the form NAME=VALUE")
    try:
        return name, convert(value)
    except ValueError:
        fail(f"{flag} {text!r}: {value!r} is not a number")


def _print_summary(store: Store, as_json: bool) -> None:
    manifest = store.manifest
    sizes = {path: store.files.size(path) for path in manifest.all_files()}
    if as_json:
        content = {
            "store": store.files.url,
            "bytes": sum(sizes.values()),
            "manifest": manifest.model_dump(mode="json"),
        }
        typer.echo(json.dumps(content, indent=2))
        return
    encoder = manifest.backbone
    typer.echo(f"{store.files.url}: revision {manifest.store_revision}, {decimal(sum(sizes.values()))}")
    typer.echo(
        f"encoder: {encoder.embedding.image_size} px, patch {encoder.embedding.patch_size}, "
        f"{encoder.depth} blocks of width {encoder.width}; router at block {manifest.router.layer}; "
        f"mode {manifest.router.mode}, first pass {manifest.router.first_pass}; "
        f"merged base {manifest.merged_base}; "
        f"blocks {manifest.block_dtype}, ratio {manifest.compression_ratio:.4g}"
    )
    if manifest.calibration is not None:
        fits = manifest.calibrated_tasks([task.name for task in manifest.tasks]) is not None
        state = "" if fits else ", of other tasks or revisions: not used until the store is calibrated again"
        typer.echo(f"calibrated on {manifest.calibration.images:,} images{state}")
    console = Console()
    if not console.is_terminal:
        console.width = 200  # a file or pipe has no width to cut names to
    console.print(_task_table(store, sizes))
    if removed := [name for name in manifest.history if manifest.find_task(name) is None]:
        typer.echo(f"removed, kept until `task prune`: {', '.join(removed)}")


def _task_table(store: Store, sizes: dict[str, int]) -> Table:
    columns = ("task", "revision", "classes", "head", "rank", "size", "accuracy alone", "earlier")
    table = Table(*(Column(column, no_wrap=True) for column in columns))
    for task in store.manifest.tasks:
        accuracy = "?" if task.individual_accuracy is None else f"{task.individual_accuracy:.4f}"
        size = decimal(sum(sizes[path] for path in task.files))
        earlier = len(store.manifest.history.get(task.name, ()))
        counts = (str(len(task.labels)), task.head.kind, str(task.rank), size)
        table.add_row(task.name, task.revision, *counts, accuracy, str(earlier))
    return table


def register(app: typer.Typer) -> None:
    """Adds the commands `build`, `inspect` and `verify`, and the group `task`."""
    app.command("build")(build)
    app.command("inspect")(inspect)
    app.command("verify")(verify)
    app.add_typer(task_commands.app, name="task")
