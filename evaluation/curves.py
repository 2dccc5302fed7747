"""Accuracy against the number of tasks, added one by one, and against the rank."""

from __future__ import annotations

from typing import TypedDict

from mass_serve.backbone import weight_of
from mass_serve.engine import Engine
from mass_serve.evaluation.changes import TaskChanges
from mass_serve.evaluation.figures import known_accuracies, known_mean
from mass_serve.evaluation.inputs import files_of
from mass_serve.evaluation.measures import Interval
from mass_serve.evaluation.methods import Dense, Method, Routed, TaskKnown
from mass_serve.evaluation.run import Run
from mass_serve.evaluation.variants import Variants

# Shares of the store's rank. Above it, the fine-tuned models are needed.
RANK_SHARES = (0.125, 0.25, 0.5, 1.0)
RANK_SHARES_OF_FINETUNED = (2.0, 4.0)


class PointFigures(TypedDict):
    """Averages over the tasks of a point."""

    accuracy: float
    interval: Interval  # 95 %


class TaskPoint(TypedDict):
    """Figures of the store with its first `tasks` tasks."""

    tasks: int
    added: str
    individual: float | None
    mass: PointFigures
    tsv_m: PointFigures
    tsv_c: PointFigures


class RankPoint(TypedDict):
    """Figures of the store with another rank."""

    rank_share: float  # of the store's rank
    rank: int  # of the encoder's inner matrices: the largest task's
    mass: PointFigures
    tsv_m: PointFigures
    tsv_c: PointFigures


class Curves(TypedDict):
    """The part of the report that `--curves` adds."""

    tasks: list[TaskPoint]
    rank: list[RankPoint]


def accuracy_curves(
    run: Run, variants: Variants, changes: TaskChanges, individual: dict[str, float | None]
) -> Curves:
    """Measures both curves. The points of the store as it is are taken from the evaluation made before."""
    return Curves(tasks=_against_tasks(run, variants, individual), rank=_against_rank(run, variants, changes))


def _against_tasks(run: Run, variants: Variants, individual: dict[str, float | None]) -> list[TaskPoint]:
    points = []
    names = [head.entry.name for head in variants.loaded.heads]
    for count in range(1, len(names) + 1):
        measured = [task for task in names[:count] if task in run.data.tasks]
        if names[count - 1] not in measured:
            continue  # without inputs of the task that is added there is nothing new to measure
        suffix = "" if count == len(names) else f", {count} tasks"
        if suffix:
            engine = variants.of_first_tasks(count)
            run.answer(Routed(f"mass{suffix}", engine), measured)
            run.answer(_merged(f"tsv_m{suffix}", engine), measured)
        points.append(
            TaskPoint(
                tasks=count,
                added=names[count - 1],
                individual=known_mean([individual[task] for task in measured]),
                mass=_figures(run, f"mass{suffix}", measured),
                tsv_m=_figures(run, f"tsv_m{suffix}", measured),
                tsv_c=_figures(run, "tsv_c", measured),  # the other tasks do not change it
            )
        )
    return points


def _against_rank(run: Run, variants: Variants, changes: TaskChanges) -> list[RankPoint]:
    points = []
    tasks = run.data.tasks
    shares = RANK_SHARES + (RANK_SHARES_OF_FINETUNED if changes.source == "finetuned" else ())
    for share in shares:
        suffix = "" if share == 1 else f", {share:g} of the rank"
        engine = variants.engine() if share == 1 else variants.of_rank(share, changes)
        if suffix:
            methods: list[Method] = [
                Routed(f"mass{suffix}", engine),
                _merged(f"tsv_m{suffix}", engine),
                TaskKnown(f"tsv_c{suffix}", engine),
            ]
            for method in methods:
                run.answer(method, tasks)
        points.append(
            RankPoint(
                rank_share=share,
                rank=max(engine.bank.ranks[weight_of(engine.architecture.residual_linear(0))]),
                mass=_figures(run, f"mass{suffix}", tasks),
                tsv_m=_figures(run, f"tsv_m{suffix}", tasks),
                tsv_c=_figures(run, f"tsv_c{suffix}", tasks),
            )
        )
    return points


def _merged(name: str, engine: Engine) -> Dense:
    """The method TSV-M: one encoder, merged of all the engine's tasks."""
    bank = engine.bank
    parameters = bank.merged_parameters(list(bank.pretrained), range(bank.num_tasks))
    return Dense(name, engine.architecture, files_of(engine), engine.head, lambda _task, _half: parameters)


def _figures(run: Run, method: str, tasks: list[str]) -> PointFigures:
    """The average accuracy of a method over the tasks of a point."""
    average = known_accuracies(run.journal, method, tasks)["average"]
    return PointFigures(accuracy=average["accuracy"], interval=average["interval"])
