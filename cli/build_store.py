"""mass-serve build: a store made from a pretrained encoder and the models fine-tuned from it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from pydantic import Field

from mass_serve.cli.arguments import JsonOption
from mass_serve.cli.failing import fail
from mass_serve.cli.progress_bars import progress_bars
from mass_serve.cli.setting_flags import with_option_flags
from mass_serve.cli.store_summary import print_summary, warn_of_constant_routing, warn_of_distances
from mass_serve.evaluation.errors import EvaluationDataError
from mass_serve.model_store.build_options import RANK_OPTIONS, BuildOptions
from mass_serve.model_store.errors import StoreError
from mass_serve.model_store.format.groups import Groups
from mass_serve.model_store.rank_options import refuse_two_rules
from mass_serve.router.modes import MODE_NAMES, ModeName

if TYPE_CHECKING:
    from mass_serve.model_store.recipes import ModelName, NamedTask, Recipe
    from mass_serve.model_store.store import Store

STORED_MODE = BuildOptions.model_fields["mode"]
STORED_RATIO = BuildOptions.model_fields["compression_ratio"]


class BuildFlags(BuildOptions):
    """The options of a build, with the modes that there are, which a store does not know; a ratio is text."""

    compression_ratio: str | None = Field(default=None, description=STORED_RATIO.description)
    mode: ModeName = Field(default=STORED_MODE.default, description=STORED_MODE.description)


def build(
    recipe: Annotated[
        Path | None,
        typer.Argument(help="YAML file with what else would be flags; flags override it", metavar="RECIPE"),
    ] = None,
    pretrained: Annotated[
        str | None, typer.Option(help="checkpoint before fine-tuning", metavar="MODEL")
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="a fine-tuned checkpoint; repeat", metavar="NAME=MODEL")
    ] = None,
    out: Annotated[str | None, typer.Option(help="new store: a folder or URL", metavar="STORE")] = None,
    head: Annotated[
        list[str] | None,
        typer.Option(
            help="head (default: head.safetensors in the task's MODEL, else its classifier)",
            metavar="NAME=MODEL",
        ),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            help="JSON list of classes (default: labels.json in the task's MODEL, else id2label)",
            metavar="NAME=FILE",
        ),
    ] = None,
    individual_accuracy: Annotated[
        list[str] | None, typer.Option(help="of the fine-tuned model alone, 0 to 1", metavar="NAME=F")
    ] = None,
    multi_label: Annotated[
        list[str] | None,
        typer.Option(
            help="a task whose inputs have any number of its labels (default: what its MODEL says)",
            metavar="NAME",
        ),
    ] = None,
    thresholds: Annotated[
        list[str] | None,
        typer.Option(
            help="JSON object of labels and probabilities from which on they are given, 0.5 for others; of a"
            " task of any number of labels (default: thresholds.json in the task's MODEL)",
            metavar="NAME=FILE",
        ),
    ] = None,
    *,
    options: BuildFlags,
    eval_data: Annotated[
        Path | None,
        typer.Option(help="measure individual accuracies on labelled data, as eval takes it", metavar="DATA"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Builds a store from a pretrained encoder and the models fine-tuned from it.

    A MODEL is a local folder or file, hf:org/model[@revision] of the Hugging Face hub, or a URL such as
    s3://bucket/model. A build that was interrupted goes on where it stopped when the same command is given
    again, downloads included.
    """
    from mass_serve.cli.flags_of_tasks import FlagsOfTasks
    from mass_serve.model_store.recipes import ModelName

    try:
        written = _written(recipe)
        flags = FlagsOfTasks(
            task or [],
            multi_label or [],
            {
                "--head": head or [],
                "--labels": labels or [],
                "--individual-accuracy": individual_accuracy or [],
                "--thresholds": thresholds or [],
            },
        )
        tasks = flags.over(written.tasks)
        base = ModelName(pretrained) if pretrained else written.pretrained or _fail_without("--pretrained")
        place = out or written.out or _fail_without("--out")
        chosen = _overridden(written.options, options.model_dump(exclude_unset=True))
        store = _build(base, tasks, written.groups, place, chosen, eval_data or written.eval_data)
    except (StoreError, EvaluationDataError) as error:
        fail(error)
    print_summary(store, as_json)
    warn_of_distances(store.manifest.tasks)
    warn_of_constant_routing(store)


def _written(recipe: Path | None) -> Recipe:
    """What a recipe says; without one, nothing."""
    from mass_serve.model_store.recipes import Recipe, read_recipe

    if recipe is None:
        return Recipe(pretrained=None, out=None, eval_data=None, tasks=(), groups={}, options={})
    return read_recipe(recipe, MODE_NAMES)


def _build(
    pretrained: ModelName,
    tasks: Sequence[NamedTask],
    groups: Groups,
    out: str,
    options: BuildOptions,
    eval_data: Path | None,
) -> Store:
    from mass_serve.engine.measuring import measured
    from mass_serve.evaluation import with_individual_accuracies
    from mass_serve.model_store.build_store import build as write_store
    from mass_serve.model_store.build_store import refuse_taken
    from mass_serve.model_store.plan import check_task_names
    from mass_serve.model_store.recipes import named_inputs

    # Before anything is fetched: that can take hours.
    check_task_names([task.name for task in tasks], groups)
    refuse_taken(out)
    with progress_bars() as progress:
        base, inputs = named_inputs(pretrained, tasks, options.allow_pickle, progress)
        if eval_data is not None:
            inputs = with_individual_accuracies(base.path, inputs, options, eval_data, progress, base.origin)
        return write_store(
            base.path, inputs, out, options, progress, MODE_NAMES, base.origin, measured, groups
        )


def _overridden(written: dict[str, Any], flags: dict[str, Any]) -> BuildOptions:
    """Puts what flags say in the place of what a recipe says; ranks are chosen in one way alone."""
    ranks = [name for name in RANK_OPTIONS if flags.get(name) is not None]
    refuse_two_rules([f"--{name.replace('_', '-')}" for name in ranks])
    if ranks:
        written = {name: value for name, value in written.items() if name not in RANK_OPTIONS}
    return BuildOptions(**written | flags)


def _fail_without(flag: str) -> NoReturn:
    fail(f"{flag} is missing: give it, or a recipe that has it")


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("build")(with_option_flags(build, "options", BuildFlags))
