"""One run over the data: MASS as it is served, the baselines, and the report of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from mass_serve.engine import Engine
from mass_serve.evaluation.answer_journal import AnswerJournal
from mass_serve.evaluation.baselines import (
    ANY_HEAD,
    INDIVIDUAL,
    NAMES,
    PRETRAINED,
    TSV_C,
    USUAL,
    Baselines,
    storage,
)
from mass_serve.evaluation.changes import BlockChanges, TaskChanges
from mass_serve.evaluation.curves import Curves, accuracy_curves
from mass_serve.evaluation.data import EvaluationData
from mass_serve.evaluation.figures import (
    Accuracy,
    Calibration,
    RoutedFigures,
    average_routed,
    calibration,
    known_accuracies,
    known_mean,
    routed_figures,
)
from mass_serve.evaluation.methods import Method, Routed
from mass_serve.evaluation.run import Run
from mass_serve.evaluation.search import Search, Searched
from mass_serve.evaluation.unfamiliar import Unfamiliar, unfamiliar
from mass_serve.evaluation.variants import Variants
from mass_serve.merging.methods import TSV_M
from mass_serve.model_store.progress import Progress, silent


class TaskFigures(RoutedFigures):
    """One task's figures, and the baselines' accuracies, null where unknown."""

    baselines: dict[str, float | None]


class SearchReport(TypedDict):
    """A coefficient that was tuned, on one half of the inputs for the other."""

    tried: list[float]
    images: int  # searched on
    used: dict[str, list[float]]  # by task: for the first half and for the second


class BaselineReport(TypedDict):
    """One baseline in full."""

    source: str  # pretrained, store, blocks (of the store) or finetuned
    searched: SearchReport | None
    bytes: int | None  # on disk, heads apart
    bytes_ratio: float | None  # to one encoder
    tasks: dict[str, Accuracy]
    average: Accuracy


class MethodReport(TypedDict):
    """One method that routes."""

    tasks: dict[str, RoutedFigures]
    average: RoutedFigures
    routed_to: dict[str, dict[str, int]]  # by task: inputs by the task of the largest coefficient
    answered_by: dict[str, dict[str, int]]  # by task: inputs by the task whose head answered
    label_calibration: Calibration
    task_calibration: Calibration


class Report(TypedDict):
    """The JSON of `mass-serve eval`; `tasks` and `average` are of the first method."""

    tasks: dict[str, TaskFigures]
    average: TaskFigures
    methods: dict[str, MethodReport]
    baselines: dict[str, BaselineReport | None]
    curves: Curves | None
    unfamiliar: Unfamiliar | None  # of the first method
    settings: dict[str, object]


@dataclass(frozen=True)
class StoreBytes:
    """The bytes that a store takes on disk."""

    encoder: int
    experts: int


@dataclass(frozen=True)
class Options:
    """The parts of a run that may be chosen."""

    changes: TaskChanges | None = None  # None: as the store's blocks have them
    baselines: Sequence[str] = USUAL  # which to measure
    methods: Sequence[Method] = ()  # those that route; none: the engine as it is, named "mass"
    unfamiliar: Path | None = None  # a folder of inputs that no task covers: root/<domain>/*
    curves: Variants | None = None  # of the same store: accuracy against tasks and rank too
    store_bytes: StoreBytes | None = None
    settings: dict[str, object] | None = None  # what else the answers depend on


def evaluate(
    engine: Engine, data: EvaluationData, progress: Progress = silent, options: Options | None = None
) -> Report:
    """Answers every input with its task unknown, and with each baseline, its task known.

    Raises EvaluationDataError for inputs that cannot be read, and for a journal of another evaluation.
    """
    options = options or Options()
    changes = options.changes or BlockChanges(engine.bank, tuple(engine.tasks))
    journal = AnswerJournal(data.database)
    settings = _settings(engine, changes, options)
    journal.claim(settings)
    run = Run(data, journal, progress)
    methods = list(options.methods) or [Routed("mass", engine)]
    for method in methods:
        run.answer(method, data.tasks)
    searched: dict[str, Searched | None] = {}
    for baseline in Baselines(engine, changes, Search(data, journal, progress), options.baselines):
        run.answer(baseline.method, data.tasks)
        searched[baseline.method.name] = baseline.searched
    individual = _individual(run, engine, measured=INDIVIDUAL in searched)
    variants = options.curves
    curves = None if variants is None else accuracy_curves(run, variants, changes, individual)
    strange = _unfamiliar(run, engine, methods[0], options)
    routing_methods = [*(method.name for method in methods), *([ANY_HEAD] if ANY_HEAD in searched else [])]
    reports = {name: _method_report(run, name, individual) for name in routing_methods}
    baselines = {
        name: _baseline_report(run, engine, changes, options.store_bytes, name, searched) for name in NAMES
    }
    tasks, average = _first_method(reports[methods[0].name], baselines, individual)
    return Report(
        tasks=tasks,
        average=average,
        methods=reports,
        baselines=baselines,
        curves=curves,
        unfamiliar=strange,
        settings=settings,
    )


def _unfamiliar(run: Run, engine: Engine, first: Method, options: Options) -> Unfamiliar | None:
    """How the first method answers the inputs that no task covers; None where there are none."""
    if options.unfamiliar is None:
        return None
    routing = first.engine if isinstance(first, Routed) else engine
    familiar = run.journal.familiarities(first.name)
    return unfamiliar(routing, options.unfamiliar, familiar, run.progress)


def _settings(engine: Engine, changes: TaskChanges, options: Options) -> dict[str, object]:
    """Everything that the answers depend on beside the inputs: a journal is of one such setting."""
    like = engine.bank.like
    own = {
        "store_revision": engine.store_revision,
        "tasks": list(engine.tasks),
        "device": like.device.type,
        "dtype": str(engine.dtype).removeprefix("torch."),
        "task_vectors": changes.source,
        "finetuned_models": changes.identity,
    }
    return own | (options.settings or {})


def _individual(run: Run, engine: Engine, *, measured: bool) -> dict[str, float | None]:
    """The individual models' accuracies: measured in this run, or as the manifest has them."""
    if not measured:
        return {task: engine.tasks[task].individual_accuracy for task in run.data.tasks}
    figures = known_accuracies(run.journal, INDIVIDUAL, run.data.tasks)
    return {task: figures[task]["accuracy"] for task in run.data.tasks}


def _method_report(run: Run, name: str, individual: dict[str, float | None]) -> MethodReport:
    """The report of one method that routes, from its answers in the journal."""
    journal, tasks = run.journal, run.data.tasks
    figures = {task: routed_figures(journal, name, task, individual[task]) for task in tasks}
    return MethodReport(
        tasks=figures,
        average=average_routed(list(figures.values())),
        routed_to={task: dict(journal.went_to(name, task, "routed_to")) for task in tasks},
        answered_by={task: dict(journal.went_to(name, task, "answered")) for task in tasks},
        label_calibration=calibration(journal.confidence_bins(name, "score")),
        task_calibration=calibration(journal.confidence_bins(name, "coefficient")),
    )


def _baseline_report(
    run: Run,
    engine: Engine,
    changes: TaskChanges,
    store_bytes: StoreBytes | None,
    name: str,
    searched: dict[str, Searched | None],
) -> BaselineReport | None:
    """The report of one baseline; None where it was not measured."""
    if name not in searched:
        return None
    figures = known_accuracies(run.journal, name, run.data.tasks)
    average = figures.pop("average")
    size = None
    if store_bytes is not None:
        parameters = sum(form.shape.numel() for form in engine.bank.forms.values())
        size = storage(name, parameters, len(engine.tasks), store_bytes.encoder, store_bytes.experts)
    sources = {PRETRAINED: "pretrained", TSV_M.name: "store", TSV_C: "store"}
    return BaselineReport(
        source=sources.get(name, changes.source),
        searched=_search_report(searched[name], run.data.tasks),
        bytes=size,
        bytes_ratio=None if size is None or store_bytes is None else size / store_bytes.encoder,
        tasks=figures,
        average=average,
    )


def _search_report(searched: Searched | None, tasks: Sequence[str]) -> SearchReport | None:
    """The coefficients that were tried and used; None for a method that has none."""
    if searched is None:
        return None
    used = {task: [searched.coefficients[task, half] for half in (0, 1)] for task in tasks}
    return SearchReport(tried=list(searched.tried), images=searched.inputs, used=used)


def _first_method(
    report: MethodReport,
    baselines: dict[str, BaselineReport | None],
    individual: dict[str, float | None],
) -> tuple[dict[str, TaskFigures], TaskFigures]:
    """The figures of a method by task and on average, with the baselines beside them."""

    def accuracy(name: str, task: str) -> float | None:
        baseline = baselines[name]
        if name == INDIVIDUAL:
            return individual[task]
        return None if baseline is None else baseline["tasks"][task]["accuracy"]

    table = {task: {name: accuracy(name, task) for name in NAMES} for task in report["tasks"]}
    averages = {name: known_mean([row[name] for row in table.values()]) for name in NAMES}
    tasks = {task: TaskFigures(**figures, baselines=table[task]) for task, figures in report["tasks"].items()}
    return tasks, TaskFigures(**report["average"], baselines=averages)
