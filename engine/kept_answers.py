"""Answers that outlive their batch.

What an answer holds are rows of tensors of its whole batch: who keeps one would keep them all.

    mine = kept(answer)
    room -= answer_nbytes(mine)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace

from torch import Tensor

from mass_serve.engine.answers import AnyAnswer, Embedding
from mass_serve.engine.by_task import ByTask
from mass_serve.router import Evidence

# What a tensor takes beside its numbers, and an answer beside its tensors: together a little more than a
# process grows by where it keeps thousands of routed answers of the demo store.
TENSOR_BYTES = 512
ANSWER_BYTES = 2048


def kept(answer: AnyAnswer) -> AnyAnswer:
    """The same answer, which shares no memory with its batch."""
    if isinstance(answer, Embedding):
        return replace(answer, values=answer.values.clone())
    residuals = answer.residuals
    return replace(
        answer,
        logits=answer.logits.clone(),
        residuals=residuals.copied() if isinstance(residuals, ByTask) else residuals,
        evidence=None if answer.evidence is None else _copied(answer.evidence),
        alternatives=tuple(replace(one, logits=one.logits.clone()) for one in answer.alternatives),
    )


def answer_nbytes(answer: AnyAnswer) -> int:
    """About how much memory an answer takes that was `kept`."""
    return ANSWER_BYTES + sum(TENSOR_BYTES + tensor.nbytes for tensor in _tensors(answer))


def _copied(evidence: Evidence) -> Evidence:
    return replace(evidence, **{name: tensor.clone() for name, tensor in _of_evidence(evidence)})


def _of_evidence(evidence: Evidence) -> Iterator[tuple[str, Tensor]]:
    for field in fields(evidence):
        tensor = getattr(evidence, field.name)
        if tensor is not None:
            yield field.name, tensor


def _tensors(answer: AnyAnswer) -> Iterator[Tensor]:
    if isinstance(answer, Embedding):
        yield answer.values
        return
    yield answer.logits
    if isinstance(answer.residuals, ByTask):
        yield answer.residuals.tensor
    if answer.evidence is not None:
        yield from (tensor for _, tensor in _of_evidence(answer.evidence))
    yield from (one.logits for one in answer.alternatives)
