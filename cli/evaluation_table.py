"""The report of an evaluation as tables for a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Column, Table

from mass_serve.evaluation import Report
from mass_serve.evaluation.baselines import INDIVIDUAL, PRETRAINED, TITLES, TSV_C
from mass_serve.evaluation.evaluate import MethodReport
from mass_serve.evaluation.figures import Accuracy, RoutedFigures
from mass_serve.evaluation.measures import Interval
from mass_serve.evaluation.unfamiliar import Unfamiliar
from mass_serve.merging.methods import (
    CONSENSUS,
    DOGE,
    ISO_C,
    ISO_CTS,
    OPCM,
    TALL_MASKS,
    TASK_ARITHMETIC,
    TIES,
    TSV_M,
    WEIGHT_AVERAGING,
    WUDI,
)

ROUTED_HEADINGS = (
    "accuracy",
    "95 %",
    "of individual",
    "right among two",
    "router",
    "survival",
    "set size",
    "passes",
    "ECE label",
    "ECE task",
)
# From what is usually the most accurate to the least.
BASELINES = (
    INDIVIDUAL,
    TSV_C,
    TALL_MASKS.name,
    ISO_CTS.name,
    ISO_C.name,
    WUDI.name,
    TSV_M.name,
    DOGE.name,
    OPCM.name,
    CONSENSUS.name,
    TIES.name,
    TASK_ARITHMETIC.name,
    WEIGHT_AVERAGING.name,
    PRETRAINED,
)


def print_report(report: Report, noun: str) -> None:
    """Prints the routed methods, the baselines with the task known, and what the baselines are.

    `noun` says what was measured: images, or texts.
    """
    console = Console()
    if not console.is_terminal:
        console.width = 200  # a file or pipe has no width to cut names to
    for name, method in report["methods"].items():
        console.print(_routed(name, method, noun))
    console.print(_baselines(report))
    console.print(_notes(report, noun))
    if report["unfamiliar"] is not None:
        console.print(_unfamiliar(report["unfamiliar"], noun))


def _table(title: str, first: str, *headings: str) -> Table:
    columns = [Column(heading, justify="right") for heading in headings]
    return Table(first, *columns, title=title, title_justify="left")


def _routed(name: str, method: MethodReport, noun: str) -> Table:
    """Shows the figures of one method, the micro F1 among them where it is not the accuracy."""
    rows = [*method["tasks"].items(), ("average", method["average"])]
    several = any(figures["micro_f1"] != figures["accuracy"] for _, figures in rows)
    further = ("micro F1",) if several else ()
    table = _table(f"{name}: task unknown", "task", noun, *ROUTED_HEADINGS, *further)
    for task, figures in rows:
        if task == "average":
            table.add_section()
        table.add_row(task, *_routed_cells(figures), *([_number(figures["micro_f1"])] if several else []))
    return table


def _routed_cells(figures: RoutedFigures) -> list[str]:
    return [
        str(figures["images"]),
        _number(figures["accuracy"]),
        _interval(figures["intervals"]["accuracy"]),
        _number(figures["normalised_accuracy"]),
        _number(figures["right_of_two"]),
        _number(figures["router_accuracy"]),
        _number(figures["task_survival"]),
        _number(figures["mean_set_size"]),
        _number(figures["mean_passes"]),
        _number(figures["label_ece"]),
        _number(figures["task_ece"]),
    ]


def _baselines(report: Report) -> Table:
    """Shows accuracies with the task known; columns of what was not measured are left out."""
    known = [name for name in BASELINES if report["average"]["baselines"][name] is not None]
    table = _table("baselines: task known", "task", *(TITLES[name] for name in known))
    for task, figures in report["tasks"].items():
        table.add_row(task, *(_number(figures["baselines"][name]) for name in known))
    table.add_section()
    table.add_row("average", *(_number(report["average"]["baselines"][name]) for name in known))
    intervals = [_average_interval(report, name) for name in known]
    table.add_row("95 %", *intervals)
    return table


def _unfamiliar(figures: Unfamiliar, noun: str) -> Table:
    """Shows how well familiarity tells what no task covers."""
    table = _table(f"{noun} that no task covers", "domain", noun, "AUROC", "unrouted")
    for name, domain in (*figures["domains"].items(), ("average", figures["average"])):
        table.add_row(name, str(domain["images"]), _number(domain["auroc"]), _number(domain["unrouted"]))
    return table


def _average_interval(report: Report, name: str) -> str:
    baseline = report["baselines"][name]
    average: Accuracy | None = None if baseline is None else baseline["average"]
    return "?" if average is None else _interval(average["interval"])


def _notes(report: Report, noun: str) -> Table:
    """Shows where each baseline's weights are from, what was searched, and what it stores."""
    table = _table("what the baselines are", "baseline", "weights from", "of one encoder's bytes", "searched")
    for name in BASELINES:
        baseline, title = report["baselines"][name], TITLES[name]
        if baseline is not None:
            table.add_row(
                title, baseline["source"], _number(baseline["bytes_ratio"]), _searched(report, name, noun)
            )
        elif report["average"]["baselines"][name] is not None:
            table.add_row(title, "the manifest's figure", "?", "")
        else:
            table.add_row(title, "not measured", "?", "")
    return table


def _searched(report: Report, name: str, noun: str) -> str:
    baseline = report["baselines"][name]
    search = None if baseline is None else baseline["searched"]
    if search is None:
        return ""
    used = sorted({value for values in search["used"].values() for value in values})
    values = ", ".join(f"{value:g}" for value in used)
    return f"{values}; on the other half of {search['images']} {noun}"


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:.3f}"


def _interval(interval: Interval) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}"
