"""mass-serve task choose-thresholds: those of a task of any number of labels, by labelled inputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mass_serve.cli.arguments import StoreArgument
from mass_serve.cli.failing import EXIT_FAILED, fail
from mass_serve.cli.progress_bars import progress_bars
from mass_serve.evaluation.errors import EvaluationDataError
from mass_serve.model_store.errors import StoreError
from mass_serve.server.settings import SettingsError, load_settings


def choose_thresholds(
    store: StoreArgument,
    name: Annotated[str, typer.Argument(help="task of any number of labels", metavar="NAME")],
    data: Annotated[Path, typer.Argument(help="labelled inputs, as eval takes them", metavar="DATA")],
    out: Annotated[Path, typer.Option(help="new file, for `task thresholds`", metavar="FILE")],
) -> None:
    """Writes the thresholds with which each label's F1 is the best on labelled inputs, as the store answers.

    A label that no input has keeps its own. Measure them on other inputs.
    """
    from mass_serve.evaluation import EvaluationData, files_of
    from mass_serve.evaluation.chosen_thresholds import chosen_thresholds
    from mass_serve.evaluation.data import of_whole_inputs
    from mass_serve.server.startup import store_source

    if out.exists():
        fail(f"{out} exists: remove it, or choose another name")
    try:
        engine = store_source(load_settings({"store": store})).load()
        entry = engine.tasks.get(name)
        if entry is None or entry.head.thresholds is None:
            several = [task for task, other in engine.tasks.items() if other.head.is_multi_label]
            fail(f"{name!r} is no task of any number of labels; the store has {', '.join(several) or 'none'}")
        labels = of_whole_inputs(engine.tasks)
        with progress_bars() as progress:
            found = chosen_thresholds(engine, name, EvaluationData(data, labels, files_of(engine)), progress)
        own = dict(zip(entry.labels, entry.head.thresholds, strict=True))
        out.write_text(json.dumps(own | found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except (SettingsError, StoreError, EvaluationDataError, FloatingPointError) as error:
        fail(error)
    except OSError as error:
        fail(f"cannot write {error.filename}: {error.strerror}", EXIT_FAILED)
    unseen = len(entry.labels) - len(found)
    kept = f"; {unseen} labels that no input has keep theirs" if unseen else ""
    typer.echo(f"{out}: thresholds of {len(found)} labels of {name}{kept}")


def register(commands: typer.Typer) -> None:
    """Adds the command to those of tasks."""
    commands.command("choose-thresholds")(choose_thresholds)
