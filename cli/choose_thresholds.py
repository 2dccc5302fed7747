"""mass-serve task choose-thresholds: those of a task of any number of labels, by labelled inputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mass_serve.cli.arguments import StoreArgument
from mass_serve.cli.failing import EXIT_FAILED, fail
from mass_serve.cli.progress_bars import progress_bars
from mass_serve.evaluation import EvaluationData, EvaluationDataError, files_of
from mass_serve.evaluation.chosen_thresholds import chosen_thresholds
from mass_serve.evaluation.data import of_whole_inputs
from mass_serve.model_store.errors import StoreError
from mass_serve.server.settings import SettingsError, load_settings
from mass_serve.server.startup import store_source


def choose_thresholds(
    store: StoreArgument,
    name: Annotated[str, typer.Argument(help="task of any number of labels", metavar="NAME")],
    data: Annotated[Path, typer.Argument(help="labelled inputs, as eval takes them", metavar="DATA")],
    out: Annotated[Path, typer.Option(help="new file, for `task thresholds`", metavar="FILE")],
) -> None:
    """Writes the thresholds with which each label's F1 is the best on labelled inputs, as the store answers.

    Measure them on other inputs.
    """
    if out.exists():
        fail(f"{out} exists: remove it, or choose another name")
    try:
        engine = store_source(load_settings({"store": store})).load()
        if name not in engine.tasks or not engine.tasks[name].head.is_multi_label:
            several = [task for task, entry in engine.tasks.items() if entry.head.is_multi_label]
            fail(f"{name!r} is no task of any number of labels; the store has {', '.join(several) or 'none'}")
        labels = of_whole_inputs(engine.tasks)
        with progress_bars() as progress:
            found = chosen_thresholds(engine, name, EvaluationData(data, labels, files_of(engine)), progress)
        out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except (SettingsError, StoreError, EvaluationDataError, FloatingPointError) as error:
        fail(error)
    except OSError as error:
        fail(f"cannot write {error.filename}: {error.strerror}", EXIT_FAILED)
    usual = len(engine.tasks[name].labels) - len(found)
    unseen = f"; {usual} labels that no input has keep 0.5" if usual else ""
    typer.echo(f"{out}: thresholds of {len(found)} labels of {name}{unseen}")


def register(commands: typer.Typer) -> None:
    """Adds the command to those of tasks."""
    commands.command("choose-thresholds")(choose_thresholds)
