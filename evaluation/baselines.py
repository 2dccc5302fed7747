"""Ways to serve the same tasks without routing: with the task known, so that only its head answers.

One, the merged model with every head asked, does without knowing it, and is reported with what routes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mass_serve.engine.engine import Engine
from mass_serve.evaluation.changes import TaskChanges
from mass_serve.evaluation.methods import AnyHead, Dense, Method, Parameters, TaskKnown
from mass_serve.evaluation.search import Search, Searched
from mass_serve.merging.methods.elementwise import consensus, tall_mask, ties, ties_threshold

# What is searched, as the papers do on validation data. TALL masks' grid is that of the paper's code.
TASK_ARITHMETIC_COEFFICIENTS = tuple(i / 20 for i in range(1, 21))
TIES_COEFFICIENTS = tuple(i / 5 for i in range(1, 16))
CONSENSUS_COEFFICIENTS = tuple(i / 10 for i in range(1, 11))
TALL_LAMBDAS = (0.2, 0.3, 0.4, 0.5, 0.6)
# What one merged model answers when nobody names the task.
ANY_HEAD = "tsv_m_any_head"
# In the order of the report; the last four need the fine-tuned models.
NAMES = (
    "pretrained",
    "tsv_m",
    "tsv_c",
    "weight_averaging",
    "task_arithmetic",
    "individual",
    "ties",
    "tall_masks",
    "consensus",
)


@dataclass(frozen=True)
class Baseline:
    """A method that is ready to answer, and what was searched for it."""

    method: Method
    searched: Searched | None = None


class Baselines:
    """Makes the baselines one after the other: a merged encoder is in memory only while it answers."""

    def __init__(self, engine: Engine, changes: TaskChanges, search: Search) -> None:
        self._engine, self._changes, self._search = engine, changes, search
        self._tasks = tuple(engine.tasks)
        self._pretrained = engine.bank.pretrained

    def __iter__(self) -> Iterator[Baseline]:
        """Every baseline that can be had: those that merge whole models need the fine-tuned ones."""
        bank, every_task = self._engine.bank, range(len(self._tasks))
        yield Baseline(self._one("pretrained", lambda: self._pretrained))
        merged = functools.cache(lambda: bank.merged_parameters(list(self._pretrained), every_task))
        yield Baseline(self._one("tsv_m", merged))
        heads = {task: self._engine.head(task) for task in self._tasks}
        yield Baseline(AnyHead(ANY_HEAD, self._engine.config, self._engine.preprocessing, heads, merged))
        yield Baseline(TaskKnown("tsv_c", self._engine))
        yield from self._task_arithmetic()
        if self._changes.source == "finetuned":
            yield Baseline(self._dense("individual", functools.lru_cache(1)(self._individual)))
            yield self._ties()
            yield from self._masks()

    def _task_arithmetic(self) -> Iterator[Baseline]:
        """`pretrained + c sum of task vectors` (arXiv:2212.04089); their average is c = 1 / T."""
        total = self._direction(lambda changes: changes.sum(0))
        average = 1 / len(self._tasks)
        yield Baseline(self._one("weight_averaging", lambda: self._moved(total, average)))
        yield self._searched("task_arithmetic", TASK_ARITHMETIC_COEFFICIENTS, lambda _half: total)

    def _ties(self) -> Baseline:
        thresholds = torch.tensor([self._ties_threshold(task) for task in self._tasks])
        direction = self._direction(lambda changes: ties(changes, thresholds.to(changes.device)))
        return self._searched("ties", TIES_COEFFICIENTS, lambda _half: direction)

    def _masks(self) -> Iterator[Baseline]:
        """TALL masks, and the consensus of those masks; with both halves' masks where they differ."""
        total = self._direction(lambda changes: changes.sum(0))

        def masked(coefficient: float, _half: int) -> Dense:
            encoder = functools.lru_cache(1)(lambda task: self._masked(total, task, coefficient))
            return self._dense("tall_masks", lambda task, _: encoder(task))

        found = self._search.of_each_task("tall_masks", TALL_LAMBDAS, masked)
        lambdas = found.coefficients
        encoder = functools.lru_cache(1)(lambda task, half: self._masked(total, task, lambdas[task, half]))
        yield Baseline(self._dense("tall_masks", encoder), found)

        @functools.lru_cache(1)
        def agreed(half: int) -> Parameters:
            # A task without images has no mask that was searched; it takes the middle of the grid.
            middle = TALL_LAMBDAS[len(TALL_LAMBDAS) // 2]
            values = torch.tensor([lambdas.get((task, half), middle) for task in self._tasks])
            return self._direction(lambda changes: consensus(changes, values))

        yield self._searched("consensus", CONSENSUS_COEFFICIENTS, agreed)

    def _searched(
        self, name: str, tried: tuple[float, ...], direction: Callable[[int], Parameters]
    ) -> Baseline:
        """`pretrained + c direction(half)`, with the c that was best on the other half."""

        def moved(coefficient: float, half: int) -> Dense:
            return self._one(name, lambda: self._moved(direction(half), coefficient))

        found = self._search.common(name, tried, moved)
        encoder = functools.lru_cache(1)(lambda coefficient, half: self._moved(direction(half), coefficient))
        method = self._dense(name, lambda task, half: encoder(found.coefficients[task, half], half))
        return Baseline(method, found)

    def _one(self, name: str, encoder: Callable[[], Parameters]) -> Dense:
        """One encoder for every task and half."""
        made = functools.cache(encoder)
        return self._dense(name, lambda _task, _half: made())

    def _dense(self, name: str, encoder: Callable[[str, int], Parameters]) -> Dense:
        engine = self._engine
        return Dense(name, engine.config, engine.preprocessing, engine.head, encoder)

    def _direction(self, merge: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """What `merge` makes of the tasks' changes [T, ...] of every parameter."""
        return {
            name: merge(torch.stack([self._changes.change(task, name) for task in self._tasks]))
            for name in self._pretrained
        }

    def _moved(self, direction: Mapping[str, Tensor], coefficient: float) -> dict[str, Tensor]:
        return {
            name: (weight.float() + coefficient * direction[name]).to(weight.dtype)
            for name, weight in self._pretrained.items()
        }

    def _individual(self, task: str, _half: int) -> dict[str, Tensor]:
        return self._moved({name: self._changes.change(task, name) for name in self._pretrained}, 1.0)

    def _masked(self, total: Mapping[str, Tensor], task: str, tall_lambda: float) -> dict[str, Tensor]:
        """`pretrained + mask of the task * sum of task vectors`."""
        kept = {}
        for name, multi_task in total.items():
            mask = tall_mask(self._changes.change(task, name), multi_task, tall_lambda)
            kept[name] = torch.where(mask, multi_task, 0.0)
        return self._moved(kept, 1.0)

    def _ties_threshold(self, task: str) -> float:
        parts = [self._changes.change(task, name).flatten() for name in self._pretrained]
        return ties_threshold(torch.cat(parts))


def storage(name: str, parameters: int, tasks: int, encoder_bytes: int, experts_bytes: int) -> int:
    """The bytes on disk that a baseline needs, heads apart.

    An encoder of `parameters` parameters has `encoder_bytes`; TALL masks are one bit for each parameter and
    task beside two encoders' worth, the pretrained weights and the multi-task vector.
    """
    if name == "individual":
        return tasks * encoder_bytes
    if name == "tall_masks":
        return 2 * encoder_bytes + tasks * -(-parameters // 8)
    if name == "tsv_c":
        return encoder_bytes + experts_bytes
    return encoder_bytes
