"""mass-serve build: a store made from a pretrained encoder and the models fine-tuned from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from pydantic import Field

from mass_serve.cli.arguments import JsonOption
from mass_serve.cli.failing import fail
from mass_serve.cli.progress_bars import progress_bars
from mass_serve.cli.setting_flags import with_option_flags
from mass_serve.cli.store_summary import print_summary, warn_of_distances
from mass_serve.evaluation import EvaluationDataError, with_individual_accuracies
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build as write_store
from mass_serve.model_store.build_store import refuse_taken
from mass_serve.model_store.errors import StoreError
from mass_serve.model_store.plan import TaskInput
from mass_serve.router import MODE_NAMES, ModeName

Value = TypeVar("Value")
STORED_MODE = BuildOptions.model_fields["mode"]


class BuildFlags(BuildOptions):
    """The options of a build, with the modes that there are: a store does not know them."""

    mode: ModeName = Field(default=STORED_MODE.default, description=STORED_MODE.description)


def build(
    pretrained: Annotated[Path, typer.Option(help="checkpoint before fine-tuning", metavar="PATH")],
    task: Annotated[list[str], typer.Option(help="a fine-tuned checkpoint; repeat", metavar="NAME=PATH")],
    out: Annotated[str, typer.Option(help="new store: a folder or URL", metavar="STORE")],
    head: Annotated[
        list[str] | None,
        typer.Option(
            help="head (default: head.safetensors in the task's PATH, else its classifier)",
            metavar="NAME=PATH",
        ),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            help="JSON list of classes (default: labels.json in the task's PATH, else id2label)",
            metavar="NAME=FILE",
        ),
    ] = None,
    individual_accuracy: Annotated[
        list[str] | None, typer.Option(help="of the fine-tuned model alone, 0 to 1", metavar="NAME=F")
    ] = None,
    *,
    options: BuildFlags,
    eval_data: Annotated[
        Path | None,
        typer.Option(help="measure individual accuracies on DATA/<task>/<class>/*.png|jpg", metavar="DATA"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Builds a store from a pretrained encoder and the models fine-tuned from it.

    A build that was interrupted goes on where it stopped when the same command is given again.
    """
    tasks = _task_inputs(task, head or [], labels or [], individual_accuracy or [])
    try:
        with progress_bars() as progress:
            if eval_data is not None:
                refuse_taken(out)
                tasks = with_individual_accuracies(pretrained, tasks, options, eval_data, progress)
            store = write_store(pretrained, tasks, out, options, progress, MODE_NAMES)
    except (StoreError, EvaluationDataError) as error:
        fail(error)
    print_summary(store, as_json)
    warn_of_distances(store.manifest.tasks)


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
    app.command("build")(with_option_flags(build, "options", BuildFlags))
