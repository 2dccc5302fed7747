"""What is measured: a method takes images of a task and answers each. How it does is its own affair."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from backbone import ClassificationHead, DenseWeights, EncoderConfig, encode, patchify
from server.engine import Classification, Engine, Query
from server.evaluation.images import ImageBatch
from server.preprocessing import Preprocessing

Parameters = Mapping[str, Tensor]


@dataclass(frozen=True)
class RoutedTo:
    """What a router decided for one image."""

    task: str  # of the largest coefficient
    coefficient: float
    expert_set: tuple[str, ...]
    passes: float  # through the encoder, both together
    familiarity: float | None  # how much the image is like the task's; None: nothing was routed


@dataclass(frozen=True)
class Answer:
    """One image's answer."""

    task: str
    label: int  # a row of the task's head
    score: float  # the probability of the label
    routing: RoutedTo | None  # None where the task was known


class Method(Protocol):
    """A way to answer; `name` identifies it in the report and in the journal."""

    @property
    def name(self) -> str: ...

    def answer(self, batch: ImageBatch) -> list[Answer]:
        """An answer to each image of a batch."""
        ...


@dataclass(frozen=True)
class Routed:
    """A store as an engine serves it, the task unknown."""

    name: str
    engine: Engine

    def answer(self, batch: ImageBatch) -> list[Answer]:
        queries = [Query(pixels) for pixels in batch.pixels]
        return [_routed_answer(answer) for answer in self.engine.classify_batch(queries).all_answers()]


@dataclass(frozen=True)
class TaskKnown:
    """TSV-C: the engine's answer when the caller names the task."""

    name: str
    engine: Engine

    def answer(self, batch: ImageBatch) -> list[Answer]:
        queries = [Query(pixels, (batch.task,)) for pixels in batch.pixels]
        return [_known_answer(a.task, a.logits) for a in self.engine.classify_batch(queries).all_answers()]


@dataclass(frozen=True)
class Dense:
    """Plain encoders with the task's head known: one for all tasks, or one for each task and half."""

    name: str
    config: EncoderConfig
    preprocessing: Preprocessing
    head: Callable[[str], ClassificationHead]
    encoder: Callable[[str, int], Parameters]

    def answer(self, batch: ImageBatch) -> list[Answer]:
        parameters, head = self.encoder(batch.task, batch.half), self.head(batch.task)
        logits = dense_logits(self.config, parameters, self.preprocessing, head, batch.pixels)
        return [_known_answer(batch.task, row) for row in logits]


def dense_logits(
    config: EncoderConfig,
    parameters: Parameters,
    preprocessing: Preprocessing,
    head: ClassificationHead,
    pixels: list[Tensor],
) -> Tensor:
    """The logits [n, C], on the CPU, that one dense encoder and `head` give n images."""
    like = parameters["class_embedding"]
    patches = patchify(
        preprocessing.normalise(torch.stack(pixels).to(like.device)).to(like.dtype), config.patch_size
    )
    weights = DenseWeights(parameters, config.layer_norm_eps)
    with torch.inference_mode():
        return head.logits(encode(config, weights, patches)).cpu()


def _routed_answer(answer: Classification) -> Answer:
    first = max(answer.coefficients, key=lambda name: answer.coefficients[name])
    routing = RoutedTo(
        first, answer.coefficients[first], answer.expert_set, answer.passes, answer.familiarity
    )
    probabilities = answer.probabilities
    label = int(probabilities.argmax())
    return Answer(answer.task, label, float(probabilities[label]), routing)


def _known_answer(task: str, logits: Tensor) -> Answer:
    probabilities = logits.softmax(0)
    label = int(probabilities.argmax())
    return Answer(task, label, float(probabilities[label]), None)
