"""The report as pictures; matplotlib is an optional extra."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mass_serve.evaluation.curves import PointFigures, RankPoint, TaskPoint
from mass_serve.evaluation.evaluate import MethodReport, Report
from mass_serve.evaluation.figures import Calibration

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def write_plots(report: Report, folder: Path) -> list[Path]:
    """Writes accuracy.png, and of every routed method routing and reliability; the curves where there are.

    Raises ImportError without matplotlib.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = {"accuracy": _accuracy(report)}
    for name, method in report["methods"].items():
        figures[f"routing_{name}"] = _routing(method)
        figures[f"reliability_{name}"] = _reliability(method)
    if report["curves"] is not None:
        figures["accuracy_by_tasks"] = _against_tasks(report["curves"]["tasks"])
        figures["accuracy_by_rank"] = _against_rank(report["curves"]["rank"])
    paths = {folder / f"{name}.png": figure for name, figure in figures.items()}
    for path, figure in paths.items():
        figure.savefig(path, dpi=150)
    return list(paths)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure  # an optional dependency

    return Figure(figsize=(width, height), layout="constrained")


def _accuracy(report: Report) -> Figure:
    """A radar: every method's accuracy in every task, one task a spoke; the rim is 1."""
    figure = _figure(8.5, 6.5)
    axes = figure.add_subplot(projection="polar")
    tasks = list(report["tasks"])
    angles = [2 * math.pi * place / len(tasks) for place in range(len(tasks))]
    for name, values in _accuracies(report).items():
        known = [math.nan if value is None else value for value in values]
        routed = name in report["methods"]
        axes.plot([*angles, angles[0]], [*known, known[0]], label=name, linewidth=2.5 if routed else 1.0)
    lowest = min(v for values in _accuracies(report).values() for v in values if v is not None)
    axes.set_ylim(max(0.0, math.floor(10 * lowest - 0.5) / 10), 1)
    axes.set_xticks(angles, tasks)
    figure.legend(loc="outside right center", fontsize="small")
    return figure


def _accuracies(report: Report) -> dict[str, list[float | None]]:
    """The accuracy in every task of each method, by its name; methods measured in no task are left out."""
    tasks = report["tasks"].values()
    routed: dict[str, list[float | None]] = {
        name: [figures["accuracy"] for figures in method["tasks"].values()]
        for name, method in report["methods"].items()
    }
    names = report["average"]["baselines"]
    baselines = {name: [figures["baselines"][name] for figures in tasks] for name in names}
    return routed | {name: values for name, values in baselines.items() if set(values) != {None}}


def _routing(method: MethodReport) -> Figure:
    """A matrix: where the largest coefficient sends the inputs of every task."""
    tasks = list(method["routed_to"])
    columns = tasks + sorted({t for counts in method["routed_to"].values() for t in counts} - set(tasks))
    shares = [_shares(counts, columns) for counts in method["routed_to"].values()]
    figure = _figure(1.5 + 0.7 * len(columns), 1.2 + 0.6 * len(tasks))
    axes = figure.add_subplot()
    axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    for row, line in enumerate(shares):
        for column, share in enumerate(line):
            if share:
                colour = "white" if share > 0.5 else "black"
                axes.text(column, row, f"{share:.2f}", ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(columns)), columns, rotation=40, ha="right")
    axes.set_yticks(range(len(tasks)), tasks)
    axes.set_xlabel("routed to")
    axes.set_ylabel("true task")
    return figure


def _shares(counts: Mapping[str, int], columns: Sequence[str]) -> list[float]:
    total = sum(counts.values())
    return [counts.get(column, 0) / total for column in columns]


def _reliability(method: MethodReport) -> Figure:
    """A reliability diagram: how often answers are right against how sure they say they are.

    The area of a point is the number of its inputs.
    """
    figure = _figure(5, 5)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":")
    claims = {"label score": method["label_calibration"], "task probability": method["task_calibration"]}
    for name, calibration in claims.items():
        _draw_calibration(axes, name, calibration)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="share right")
    axes.legend(loc="upper left", fontsize="small")
    return figure


def _draw_calibration(axes: Axes, name: str, calibration: Calibration) -> None:
    bins = calibration["bins"]
    confidences, shares = [part["confidence"] for part in bins], [part["accuracy"] for part in bins]
    total = sum(part["images"] for part in bins)
    (line,) = axes.plot(confidences, shares, label=f"{name}, ECE {calibration['ece']:.3f}")
    sizes = [10 + 300 * part["images"] / total for part in bins]
    axes.scatter(confidences, shares, s=sizes, color=line.get_color(), alpha=0.5)


def _against_tasks(points: Sequence[TaskPoint]) -> Figure:
    """The average accuracy over the first tasks, with 95 % intervals."""
    figure = _figure(7, 4.5)
    axes = figure.add_subplot()
    counts = [point["tasks"] for point in points]
    _draw_curve(axes, "MASS, task unknown", counts, [point["mass"] for point in points])
    _draw_curve(axes, "TSV-M, head known", counts, [point["tsv_m"] for point in points])
    _draw_curve(axes, "TSV-C, task known", counts, [point["tsv_c"] for point in points])
    individual = [point["individual"] for point in points if point["individual"] is not None]
    if len(individual) == len(points):
        axes.plot(counts, individual, label="individual", color="grey", linestyle=":")
    axes.set_xticks(counts, [f"{point['tasks']}\n{point['added']}" for point in points], fontsize=7)
    axes.set(xlabel="tasks, and the one added", ylabel="accuracy")
    axes.legend(fontsize="small")
    return figure


def _against_rank(points: Sequence[RankPoint]) -> Figure:
    """The average accuracy at each rank, with 95 % intervals."""
    figure = _figure(7, 4.5)
    axes = figure.add_subplot()
    ranks = [point["rank"] for point in points]
    _draw_curve(axes, "MASS, task unknown", ranks, [point["mass"] for point in points])
    _draw_curve(axes, "TSV-M, head known", ranks, [point["tsv_m"] for point in points])
    _draw_curve(axes, "TSV-C, task known", ranks, [point["tsv_c"] for point in points])
    axes.set_xscale("log", base=2)
    axes.set_xticks(ranks, [str(rank) for rank in ranks])
    axes.set(xlabel="rank of a task's blocks", ylabel="accuracy")
    axes.legend(fontsize="small")
    return figure


def _draw_curve(axes: Axes, name: str, places: Sequence[int], points: Sequence[PointFigures]) -> None:
    (line,) = axes.plot(places, [point["accuracy"] for point in points], marker="o", label=name)
    low, high = zip(*(point["interval"] for point in points), strict=True)
    axes.fill_between(places, low, high, color=line.get_color(), alpha=0.15)
