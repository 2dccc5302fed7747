"""Methods, which are what is measured: each takes inputs of a task and answers them in its own way."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

from mass_serve.backbone import Architecture, Batch, ClassificationHead, DenseWeights, Labelling, run
from mass_serve.engine import Classification, Engine
from mass_serve.evaluation.data import InputBatch
from mass_serve.evaluation.inputs import InputFiles, Target, files_of

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
    labels: Target  # one, but of a task of any number of them
    score: float  # the probability of that
    routing: RoutedTo | None  # None where the task was known
    # Task and labels of the likeliest other task that the input was tried with.
    alternative: tuple[str, Target] | None = None


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
        answers = self.engine.classify_batch(queries).all_answers()
        return [_answer(one.task, one.logits, one.labelling, None) for one in answers]


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
        return [_answer(batch.task, row, head.labelling, None) for row in logits]


@dataclass(frozen=True)
class AnyHead:
    """One plain encoder, the task unknown: the largest logit of all heads, in one softmax, wins.

    So it does among the labels of a task of any number of them, too; then those of that task are given.
    """

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
        return [self._answer(row, starts) for row in torch.cat(logits, dim=1)]

    def _answer(self, logits: Tensor, starts: Sequence[int]) -> Answer:
        """The answer of one softmax over all heads; head i has `logits[starts[i]:starts[i + 1]]`."""
        probabilities = logits.softmax(0)
        place = bisect_right(starts, int(probabilities.argmax())) - 1
        own, task = slice(starts[place], starts[place + 1]), list(self.heads)[place]
        share = float(probabilities[own].sum())
        routing = RoutedTo(task, share, (task,), passes=1.0, familiarity=None)
        return _answer(task, logits[own], self.heads[task].labelling, routing)


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
    others = [(other.task, labels_of(other.logits, other.labelling)) for other in answer.alternatives[:1]]
    return _answer(answer.task, answer.logits, answer.labelling, routing, *others)


def labels_of(logits: Tensor, labelling: Labelling) -> Target:
    """The labels that are the answer of logits [C], ascending as those of a target are."""
    return tuple(sorted(labelling.given(logits)))


def _answer(
    task: str,
    logits: Tensor,
    labelling: Labelling,
    routing: RoutedTo | None,
    alternative: tuple[str, Target] | None = None,
) -> Answer:
    """The answer of a task's logits [C]."""
    labels, score = labels_of(logits, labelling), labelling.probability_of_given(logits)
    return Answer(task, labels, score, routing, alternative)
