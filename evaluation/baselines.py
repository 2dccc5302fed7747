"""Ways to serve the same tasks without routing: with the task known, so that only its head answers.

One, the merged model with every head asked, does without knowing it, and is reported with what routes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mass_serve.engine import Engine
from mass_serve.evaluation.changes import TaskChanges
from mass_serve.evaluation.data import of_whole_inputs
from mass_serve.evaluation.inputs import files_of
from mass_serve.evaluation.methods import AnyHead, Dense, Method, Parameters, TaskKnown
from mass_serve.evaluation.search import Search, Searched
from mass_serve.evaluation.slow_baselines import SLOW
from mass_serve.merging.methods import (
    CONSENSUS,
    DOGE,
    ISO_C,
    ISO_CTS,
    METHODS,
    OPCM,
    TALL_MASKS,
    TASK_ARITHMETIC,
    TIES,
    TSV_M,
    WEIGHT_AVERAGING,
    WUDI,
    MergingMethod,
    merged_direction,
)
from mass_serve.merging.methods.tall_masks import stored_bytes
from mass_serve.merging.methods.task_arithmetic import averaging_coefficient, moved

# What is searched, as the papers do on validation data. TALL masks' grid is that of the paper's code.
TASK_ARITHMETIC_COEFFICIENTS = tuple(i / 20 for i in range(1, 21))
TIES_COEFFICIENTS = tuple(i / 5 for i in range(1, 16))
ISOTROPIC_COEFFICIENTS = tuple(i / 4 for i in range(2, 11))
CONSENSUS_COEFFICIENTS = tuple(i / 10 for i in range(1, 11))
TALL_LAMBDAS = (0.2, 0.3, 0.4, 0.5, 0.6)
PRETRAINED = "pretrained"  # as if nothing had been fine-tuned
INDIVIDUAL = "individual"  # every task with the whole of its own fine-tuned model
TSV_C = "tsv_c"  # the blocks of the named task alone: the compression of arXiv:2412.00081
# What one merged model answers when nobody names the task.
ANY_HEAD = f"{TSV_M.name}_any_head"
# What is merged has the title that its method has.
TITLES = {PRETRAINED: "pretrained", INDIVIDUAL: "individual", TSV_C: "TSV-C"} | {
    method.name: method.title for method in METHODS
}
# Merged as a whole before anything is answered, each of them once.
WHOLE = (ISO_C, OPCM, ISO_CTS, DOGE, WUDI)
# In the order of the report; the last four need the fine-tuned models.
NAMES = (
    PRETRAINED,
    TSV_M.name,
    TSV_C,
    WEIGHT_AVERAGING.name,
    TASK_ARITHMETIC.name,
    *(method.name for method in WHOLE),
    INDIVIDUAL,
    TIES.name,
    TALL_MASKS.name,
    CONSENSUS.name,
)
# Those that are measured where none is named.
USUAL = tuple(name for name in NAMES if name not in SLOW)


@dataclass(frozen=True)
class Baseline:
    """A method that is ready to answer, and what was searched for it."""

    method: Method
    searched: Searched | None = None


@dataclass(frozen=True)
class _Vectors:
    """The task vectors by the number of the task, as merging takes them."""

    source: TaskChanges
    of_tasks: tuple[str, ...]
    names: tuple[str, ...]

    @property
    def tasks(self) -> int:
        return len(self.of_tasks)

    def change(self, task: int, name: str) -> Tensor:
        return self.source.change(self.of_tasks[task], name)


class Baselines:
    """Makes the baselines one after the other: a merged encoder is in memory only while it answers."""

    def __init__(
        self, engine: Engine, changes: TaskChanges, search: Search, wanted: Collection[str] = USUAL
    ) -> None:
        self._engine, self._changes, self._search, self._wanted = engine, changes, search, frozenset(wanted)
        self._tasks = tuple(engine.tasks)
        self._pretrained = engine.bank.pretrained
        self._vectors = _Vectors(changes, self._tasks, tuple(self._pretrained))

    def __iter__(self) -> Iterator[Baseline]:
        """Yields what is wanted and can be had: baselines that merge whole models need the fine-tuned ones.

        The consensus is that of TALL masks: where one of them is wanted, both are measured.
        """
        if PRETRAINED in self._wanted:
            yield Baseline(self._one(PRETRAINED, lambda: self._pretrained))
        if TSV_M.name in self._wanted:
            yield from self._merged()
        if TSV_C in self._wanted:
            yield Baseline(TaskKnown(TSV_C, self._engine))
        if self._wanted & {WEIGHT_AVERAGING.name, TASK_ARITHMETIC.name}:
            yield from self._task_arithmetic()
        for method in WHOLE:
            if self._can_be_had(method):
                yield self._whole(method)
        if INDIVIDUAL in self._wanted and self._changes.source == "finetuned":
            yield Baseline(self._dense(INDIVIDUAL, functools.lru_cache(1)(self._individual)))
        if self._can_be_had(TIES):
            yield self._ties()
        if self._can_be_had(CONSENSUS) or self._can_be_had(TALL_MASKS):
            yield from self._masks()

    def _can_be_had(self, method: MergingMethod) -> bool:
        """Tells whether a method is wanted and the changes are whole enough for it, as blocks may be."""
        enough = "blocks" in method.needs or self._changes.source in method.needs
        return enough and method.name in self._wanted

    def _merged(self) -> Iterator[Baseline]:
        """Yields the merged model with the right head asked, and with all of them."""
        bank, every_task = self._engine.bank, range(len(self._tasks))
        merged = functools.cache(lambda: bank.merged_parameters(list(self._pretrained), every_task))
        yield Baseline(self._one(TSV_M.name, merged))
        heads = {task: self._engine.head(task) for task in of_whole_inputs(self._engine.tasks)}
        yield Baseline(AnyHead(ANY_HEAD, self._engine.architecture, files_of(self._engine), heads, merged))

    def _task_arithmetic(self) -> Iterator[Baseline]:
        """Yields weight averaging and task arithmetic, which go the same way, the second searched how far."""
        total = self._direction(TASK_ARITHMETIC.merge)
        average = averaging_coefficient(len(self._tasks))
        if WEIGHT_AVERAGING.name in self._wanted:
            yield Baseline(self._one(WEIGHT_AVERAGING.name, lambda: self._moved(total, average)))
        if TASK_ARITHMETIC.name in self._wanted:
            yield self._searched(TASK_ARITHMETIC.name, TASK_ARITHMETIC_COEFFICIENTS, lambda _half: total)

    def _whole(self, method: MergingMethod) -> Baseline:
        """Makes the baseline of a method that merges whole models, searched how far where it says so."""
        direction = functools.cache(lambda: merged_direction(method, self._vectors))
        if "data" in method.needs:
            return self._searched(method.name, ISOTROPIC_COEFFICIENTS, lambda _half: direction())
        return Baseline(self._one(method.name, lambda: self._moved(direction(), method.coefficient)))

    def _ties(self) -> Baseline:
        direction = merged_direction(TIES, self._vectors)
        return self._searched(TIES.name, TIES_COEFFICIENTS, lambda _half: direction)

    def _masks(self) -> Iterator[Baseline]:
        """Yields TALL masks, and the consensus of those masks; with both halves' masks where they differ."""
        total = self._direction(TASK_ARITHMETIC.merge)

        def masked(coefficient: float, _half: int) -> Dense:
            encoder = functools.lru_cache(1)(lambda task: self._masked(total, task, coefficient))
            return self._dense(TALL_MASKS.name, lambda task, _: encoder(task))

        found = self._search.of_each_task(TALL_MASKS.name, TALL_LAMBDAS, masked)
        lambdas = found.coefficients
        encoder = functools.lru_cache(1)(lambda task, half: self._masked(total, task, lambdas[task, half]))
        yield Baseline(self._dense(TALL_MASKS.name, encoder), found)

        @functools.lru_cache(1)
        def agreed(half: int) -> Parameters:
            # A task without inputs has no mask that was searched; it takes the middle of the grid.
            middle = TALL_LAMBDAS[len(TALL_LAMBDAS) // 2]
            values = torch.tensor([lambdas.get((task, half), middle) for task in self._tasks])
            return self._direction(lambda changes: CONSENSUS.merge(changes, values))

        yield self._searched(CONSENSUS.name, CONSENSUS_COEFFICIENTS, agreed)

    def _searched(
        self, name: str, tried: tuple[float, ...], direction: Callable[[int], Parameters]
    ) -> Baseline:
        """Makes the baseline `pretrained + c direction(half)`, with the c that was best on the other half."""

        def scaled(coefficient: float, half: int) -> Dense:
            return self._one(name, lambda: self._moved(direction(half), coefficient))

        found = self._search.common(name, tried, scaled)
        encoder = functools.lru_cache(1)(lambda coefficient, half: self._moved(direction(half), coefficient))
        method = self._dense(name, lambda task, half: encoder(found.coefficients[task, half], half))
        return Baseline(method, found)

    def _one(self, name: str, encoder: Callable[[], Parameters]) -> Dense:
        """Makes a method with one encoder for every task and half."""
        made = functools.cache(encoder)
        return self._dense(name, lambda _task, _half: made())

    def _dense(self, name: str, encoder: Callable[[str, int], Parameters]) -> Dense:
        engine = self._engine
        return Dense(name, engine.architecture, files_of(engine), engine.head, encoder)

    def _direction(self, merge: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """Applies `merge` to the tasks' changes [T, ...] of every parameter."""
        return {
            name: merge(torch.stack([self._changes.change(task, name) for task in self._tasks]))
            for name in self._pretrained
        }

    def _moved(self, direction: Mapping[str, Tensor], coefficient: float) -> dict[str, Tensor]:
        return {
            name: moved(weight, direction[name], coefficient) for name, weight in self._pretrained.items()
        }

    def _individual(self, task: str, _half: int) -> dict[str, Tensor]:
        return self._moved({name: self._changes.change(task, name) for name in self._pretrained}, 1.0)

    def _masked(self, total: Mapping[str, Tensor], task: str, tall_lambda: float) -> dict[str, Tensor]:
        """Computes `pretrained + mask of the task * sum of task vectors`."""
        kept = {
            name: TALL_MASKS.merge(self._changes.change(task, name), multi_task, tall_lambda)
            for name, multi_task in total.items()
        }
        return self._moved(kept, 1.0)


def storage(name: str, parameters: int, tasks: int, encoder_bytes: int, experts_bytes: int) -> int:
    """Returns the bytes on disk that a baseline needs, heads apart: one encoder's but for these three."""
    if name == INDIVIDUAL:
        return tasks * encoder_bytes
    if name == TALL_MASKS.name:
        return stored_bytes(parameters, tasks, encoder_bytes)
    if name == TSV_C:
        return encoder_bytes + experts_bytes
    return encoder_bytes
