"""Methods, which are what is measured: each takes inputs of a task and answers them in its own way."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

from mass_serve.backbone import Architecture, Batch, ClassificationHead, DenseWeights, run
from mass_serve.engine import Classification, Engine
from mass_serve.evaluation.data import InputBatch
from mass_serve.evaluation.inputs import InputFiles, files_of

Parameters = Mapping[str, Tensor]


@dataclass(frozen=True)
class RoutedTo:
    """The choice of a router for one input."""

    task: str  # of the largest coefficient
    coefficient: float
    expert_set: tuple[str, ...]
    passes: float  # through the encoder, the first and the second together
    familiarity: float | None  # how much the input is like the task's; None: nothing was routed


@dataclass(frozen=True)
class Answer:
    """One input's answer."""

    task: str
    label: int  # a row of the task's head
    score: float  # the probability of the label
    routing: RoutedTo | None  # None where the task was known
    # Task and label, a row of its head, of the likeliest other task that the input was tried with.
    alternative: tuple[str, int] | None = None


class Method(Protocol):
    """A way to answer; `name` identifies it in the report and in the journal."""

    @property
    def name(self) -> str: ...

    def answer(self, batch: InputBatch) -> list[Answer]:
        """An answer to each input of a batch."""
        ...


@dataclass(frozen=True)
class Routed:
    """A store as an engine serves it, the task unknown."""

    name: str
    engine: Engine

    def answer(self, batch: InputBatch) -> list[Answer]:
        queries = [files_of(self.engine).query(one) for one in batch.inputs]
        return [_routed_answer(answer) for answer in self.engine.classify_batch(queries).all_answers()]


@dataclass(frozen=True)
class TaskKnown:
    """TSV-C: the engine's answer when the caller names the task."""

    name: str
    engine: Engine

    def answer(self, batch: InputBatch) -> list[Answer]:
        queries = [files_of(self.engine).query(one, (batch.task,)) for one in batch.inputs]
        return [_known_answer(a.task, a.logits) for a in self.engine.classify_batch(queries).all_answers()]


@dataclass(frozen=True)
class Dense:
    """Plain encoders with the task's head known: one for all tasks, or one for each task and half."""

    name: str
    architecture: Architecture
    files: InputFiles
    head: Callable[[str], ClassificationHead]
    encoder: Callable[[str, int], Parameters]

    def answer(self, batch: InputBatch) -> list[Answer]:
        parameters, head = self.encoder(batch.task, batch.half), self.head(batch.task)
        logits = dense_logits(self.architecture, parameters, self.files, head, batch.inputs)
        return [_known_answer(batch.task, row) for row in logits]


@dataclass(frozen=True)
class AnyHead:
    """One plain encoder, the task unknown: the largest logit of all heads, in one softmax, wins."""

    name: str
    architecture: Architecture
    files: InputFiles
    heads: Mapping[str, ClassificationHead]
    encoder: Callable[[], Parameters]

    def answer(self, batch: InputBatch) -> list[Answer]:
        parameters = self.encoder()
        inputs = dense_inputs(self.architecture, parameters, self.files, batch.inputs)
        with torch.inference_mode():
            embeddings = run(self.architecture, DenseWeights(parameters), inputs).embedding
            logits = [head.logits(embeddings).cpu() for head in self.heads.values()]
        starts = [0, *accumulate(part.shape[1] for part in logits)]
        return [self._answer(row, starts) for row in torch.cat(logits, dim=1).softmax(1)]

    def _answer(self, probabilities: Tensor, starts: Sequence[int]) -> Answer:
        """The answer of one softmax over all heads; head i has `probabilities[starts[i]:starts[i + 1]]`."""
        best = int(probabilities.argmax())
        place = bisect_right(starts, best) - 1
        task, of_task = list(self.heads)[place], probabilities[starts[place] : starts[place + 1]]
        routing = RoutedTo(task, float(of_task.sum()), (task,), passes=1.0, familiarity=None)
        return Answer(task, best - starts[place], float(of_task.max() / of_task.sum()), routing)


def dense_inputs(
    architecture: Architecture, parameters: Parameters, files: InputFiles, inputs: Sequence[Tensor]
) -> Batch:
    """Inputs that `files` has read, where and as a dense encoder takes them."""
    return files.batch(architecture, inputs, next(iter(parameters.values())))


def dense_logits(
    architecture: Architecture,
    parameters: Parameters,
    files: InputFiles,
    head: ClassificationHead,
    inputs: Sequence[Tensor],
) -> Tensor:
    """The logits [n, C], on the CPU, that one dense encoder and `head` give n inputs."""
    prepared = dense_inputs(architecture, parameters, files, inputs)
    with torch.inference_mode():
        return head.logits(run(architecture, DenseWeights(parameters), prepared).embedding).cpu()


def _routed_answer(answer: Classification) -> Answer:
    """The answer of an engine that routed; the likeliest task need not be the one whose head answers."""
    first = max(answer.coefficients, key=lambda name: answer.coefficients[name])
    routing = RoutedTo(
        first, answer.coefficients[first], answer.expert_set, answer.passes, answer.familiarity
    )
    probabilities = answer.probabilities
    label = int(probabilities.argmax())
    others = [(other.task, int(other.logits.argmax())) for other in answer.alternatives[:1]]
    return Answer(answer.task, label, float(probabilities[label]), routing, *others)


def _known_answer(task: str, logits: Tensor) -> Answer:
    """The answer of logits [C] where the task was known."""
    probabilities = logits.softmax(0)
    label = int(probabilities.argmax())
    return Answer(task, label, float(probabilities[label]), None)
