"""mass-serve build: a store made from a pretrained encoder and the models fine-tuned from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import typer

from mass_serve.cli.arguments import JsonOption
from mass_serve.cli.failing import fail
from mass_serve.cli.progress_bars import progress_bars
from mass_serve.cli.store_summary import print_summary
from mass_serve.evaluation import EvaluationDataError, with_individual_accuracies
from mass_serve.model_store.build_store import build as write_store
from mass_serve.model_store.build_store import refuse_taken
from mass_serve.model_store.errors import StoreError
from mass_serve.model_store.format.manifest import FirstPass
from mass_serve.model_store.plan import BuildOptions, TaskInput
from mass_serve.router import ModeName

Value = TypeVar("Value")


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
            store = write_store(pretrained, tasks, out, options, progress)
    except (StoreError, EvaluationDataError) as error:
        fail(error)
    print_summary(store, as_json)


def _task_inputs(
    tasks: Sequence[str], heads: Sequence[str], labels: Sequence[str], accuracies: Sequence[str]
) -> list[TaskInput]:
    """Reads the tasks of a build. A name given twice stays twice: the build has its own sentence for it."""
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


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("build")(build)
