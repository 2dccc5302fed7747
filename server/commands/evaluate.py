"""mass-serve eval: how close a store comes to its individual models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from model_store.errors import StoreError
from server.commands.failing import EXIT_FAILED, fail
from server.commands.progress_bars import progress_bars
from server.engine import Engine
from server.evaluation import Evaluation, EvaluationData, EvaluationDataError
from server.evaluation import evaluate as run_evaluation
from server.evaluation.evaluate import Report, TaskFigures
from server.evaluation.plots import write_plots
from server.settings import SettingsError, load_settings
from server.startup import store_source

HEADINGS = (
    "images",
    "individual",
    "MASS",
    "normalised",
    "router",
    "survival",
    "set size",
    "TSV-C",
    "TSV-M",
    "arithmetic",
    "pretrained",
)


def evaluate(
    store: Annotated[str, typer.Argument(help="store folder or URL", metavar="STORE")],
    data: Annotated[Path, typer.Argument(help="DATA/<task>/<class>/*.png|jpg", metavar="DATA")],
    json_file: Annotated[
        Path | None, typer.Option("--json", help="write the figures here; - for standard output")
    ] = None,
    plots: Annotated[Path | None, typer.Option(help="write accuracy.png and routing.png here")] = None,
) -> None:
    """Measures accuracy with the task unknown, and the baselines with the task known, on labelled images.

    An image counts as right when its task and its label both are. Settings other than the store come from
    the environment (MASS_DEVICE, MASS_DTYPE, MASS_EXECUTION, ...).
    """
    engine = _load(store)
    labels = {name: task.labels for name, task in engine.tasks.items()}
    try:
        with progress_bars() as progress:
            evaluation = run_evaluation(engine, EvaluationData(data, labels), progress)
        _write(evaluation, json_file, plots)
    except EvaluationDataError as error:
        fail(error)
    except OSError as error:
        fail(f"cannot write {error.filename}: {error.strerror}", EXIT_FAILED)


def _load(store: str) -> Engine:
    try:
        return store_source(load_settings({"store": store})).load()
    except (SettingsError, StoreError, ValueError) as error:
        fail(error)


def _write(evaluation: Evaluation, json_file: Path | None, plots: Path | None) -> None:
    content = json.dumps(evaluation.report, indent=2)
    if json_file == Path("-"):
        typer.echo(content)
    else:
        _print_table(evaluation.report)
        if json_file is not None:
            json_file.write_text(content + "\n", encoding="utf-8")
    if plots is not None:
        try:
            written = write_plots(evaluation, plots)
        except ImportError:
            fail("--plots needs matplotlib: pip install 'mass-serve[plots]'")
        typer.echo("wrote " + ", ".join(map(str, written)), err=True)


def _print_table(report: Report) -> None:
    console = Console()
    if not console.is_terminal:
        console.width = 200  # a file or pipe has no width to cut names to
    table = Table("task", *(Column(heading, justify="right") for heading in HEADINGS))
    for name, figures in report["tasks"].items():
        table.add_row(name, *_cells(figures))
    table.add_section()
    table.add_row("average", *_cells(report["average"]))
    console.print(table)


def _cells(figures: TaskFigures) -> list[str]:
    baselines = figures["baselines"]
    values = [
        baselines["individual"],
        figures["accuracy"],
        figures["normalised_accuracy"],
        figures["router_accuracy"],
        figures["task_survival"],
        figures["mean_set_size"],
        baselines["tsv_c"],
        baselines["tsv_m"],
        baselines["task_arithmetic"],
        baselines["pretrained"],
    ]
    return [str(figures["images"]), *("?" if value is None else f"{value:.3f}" for value in values)]


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("eval")(evaluate)
