"""From second-pass embeddings to what the tasks' heads say of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mass_serve.backbone import ClassificationHead, MultiLabel, Packed
from mass_serve.engine.second_passes import SecondPass
from mass_serve.kernels.transfers import downloaded, gathered_rows
from mass_serve.model_store.format.entries import TaskEntry
from mass_serve.router import HeadGeometry


@dataclass(frozen=True)
class TaskHead:
    """A task as the manifest describes it, and its classification head."""

    entry: TaskEntry
    head: ClassificationHead

    @property
    def each_token(self) -> bool:
        """Whether the head takes the last hidden states of a text's tokens, and not its embedding."""
        return self.entry.head.each_token

    @cached_property
    def geometry(self) -> HeadGeometry:
        """Returns what the head's scores are measured by."""
        multi_label = isinstance(self.head.labelling, MultiLabel)
        return HeadGeometry.of(self.head.directions, multi_label=multi_label)

    def scores(self, embeddings: Tensor) -> Tensor:
        """The head scores [n, 3] of embeddings [n, P] (see `router.head_scores`)."""
        return self.logits_and_scores(embeddings)[1]

    def logits_and_scores(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """The logits [n, C] and the head scores [n, 3] of embeddings [n, P]."""
        logits, cosines = self.head.logits_and_cosines(embeddings)
        confidence = self.head.labelling.log_confidence(logits).unsqueeze(1)
        return logits, torch.cat([self.geometry.scores(cosines), confidence], dim=1)


@dataclass(frozen=True)
class HeadResult:
    """Holds what the head of one task makes of one second pass."""

    task: int
    logits: Tensor  # [C] float32 on the CPU
    head_scores: Tensor  # [3] float32 on the CPU: see `router.head_scores`
    is_finite: bool  # every logit is


@dataclass(frozen=True)
class TokenResult:
    """Holds what the head of one task makes of the tokens of one second pass."""

    task: int
    logits: Tensor  # [n, C] float32 on the CPU


def apply_heads(
    heads: Sequence[TaskHead], second_passes: Sequence[SecondPass], embeddings: Tensor
) -> dict[int, list[HeadResult]]:
    """The results of every sample's second passes by its number in the batch, tasks ascending.

    embeddings [n, P], one of each second pass. One product a task: a head sees all its samples at once.
    """
    tasks = sorted({task for one in second_passes for task in one.expert_set})
    if not tasks:
        return {}
    rows = [[row for row, one in enumerate(second_passes) if task in one.expert_set] for task in tasks]
    found: list[Tensor] = []
    for task, own in zip(tasks, gathered_rows(embeddings, rows), strict=True):
        found += heads[task].logits_and_scores(own)
    found = downloaded(*found)
    results: dict[int, list[HeadResult]] = defaultdict(list)
    for task, of_task, logits, scores in zip(tasks, rows, found[::2], found[1::2], strict=True):
        finite = logits.isfinite().all(1).tolist()
        for row, *of_row in zip(of_task, logits.unbind(), scores.unbind(), finite, strict=True):
            results[second_passes[row].sample].append(HeadResult(task, *of_row))
    return results


def apply_token_heads(
    heads: Sequence[TaskHead], second_passes: Sequence[SecondPass], states: Sequence[Tensor]
) -> dict[int, TokenResult]:
    """The result of every sample's second pass by its number in the batch.

    `states` holds the last hidden states [n, D] of a text's n tokens for each second pass, which has one
    task. One product a task: a head sees all tokens of its samples at once.
    """
    results: dict[int, TokenResult] = {}
    for task in sorted({one.expert_set[0] for one in second_passes}):
        rows = [row for row, one in enumerate(second_passes) if one.expert_set == (task,)]
        own = [states[row] for row in rows]
        logits = Packed(heads[task].head.logits(torch.cat(own)).cpu(), tuple(map(len, own)))
        for row, of_text in zip(rows, logits, strict=True):
            results[second_passes[row].sample] = TokenResult(task, of_text)
    return results
