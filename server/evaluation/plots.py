"""The evaluation as pictures; matplotlib is an optional extra."""

from __future__ import annotations

from pathlib import Path

from server.evaluation.evaluate import Evaluation, TaskFigures

METHODS = ("individual", "mass", "tsv_c", "tsv_m", "task_arithmetic", "pretrained")


def write_plots(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Writes accuracy.png and routing.png. Raises ImportError without matplotlib."""
    folder.mkdir(parents=True, exist_ok=True)
    return [_accuracy(evaluation, folder / "accuracy.png"), _routing(evaluation, folder / "routing.png")]


def _accuracy(evaluation: Evaluation, path: Path) -> Path:
    """Bars: every method's accuracy in every task."""
    from matplotlib.figure import Figure  # an optional dependency

    figures = evaluation.report["tasks"]
    figure = Figure(figsize=(max(6.0, 1.3 * len(figures)), 4.0), layout="constrained")
    axes = figure.add_subplot()
    for column, method in enumerate(METHODS):
        heights = [_height(task, method) for task in figures.values()]
        positions = [place + 0.13 * (column - 2.5) for place in range(len(figures))]
        axes.bar(positions, heights, width=0.12, label=method)
    axes.set_xticks(range(len(figures)), list(figures), rotation=20)
    axes.set_ylim(0, 1)
    axes.set_ylabel("accuracy")
    axes.legend(ncols=3, fontsize="small", loc="lower left")
    figure.savefig(path, dpi=150)
    return path


def _height(figures: TaskFigures, method: str) -> float:
    """A method's accuracy in one task; no bar where it is unknown."""
    known: dict[str, float | None] = {**figures["baselines"], "mass": figures["accuracy"]}  # type: ignore[dict-item]
    return known[method] or 0.0


def _routing(evaluation: Evaluation, path: Path) -> Path:
    """A matrix: where the router's largest coefficient sends the images of every task."""
    from matplotlib.figure import Figure  # an optional dependency

    tasks = list(evaluation.routed_to)
    columns = tasks + sorted({t for counts in evaluation.routed_to.values() for t in counts} - set(tasks))
    shares = [
        [counts[column] / counts.total() for column in columns] for counts in evaluation.routed_to.values()
    ]
    figure = Figure(figsize=(1.5 + 0.7 * len(columns), 1.2 + 0.6 * len(tasks)), layout="constrained")
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
    figure.savefig(path, dpi=150)
    return path
