"""From second-pass embeddings to what the tasks' heads say of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mass_serve.backbone import ClassificationHead, MultiLabel, Packed
from mass_serve.engine.second_passes import SecondPass
from mass_serve.kernels.backend import backend_for
from mass_serve.kernels.heads import BESIDE, SCORES
from mass_serve.kernels.transfers import downloaded, gathered_rows, uploaded
from mass_serve.model_store.format.entries import TaskEntry
from mass_serve.router import HeadGeometry

if TYPE_CHECKING:  # Triton is imported where its kernels run
    from mass_serve.kernels.heads import fused


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

    def for_kernels(self) -> fused.Head:
        """The head as the kernels read it, which must have no hidden layer."""
        from mass_serve.kernels.heads import fused

        head, geometry = self.head, self.geometry
        return fused.Head(
            head.weight,
            head.bias,
            head.logit_scale,
            head.directions,
            geometry.along,
            geometry.lengths,
            geometry.common,
            geometry.multi_label,
        )


@dataclass(frozen=True)
class HeadResult:
    """Holds what the head of one task makes of one second pass."""

    task: int
    logits: Tensor  # [C] float32 on the CPU
    head_scores: Sequence[float]  # the three of `router.head_scores`
    is_finite: bool  # every logit is


@dataclass(frozen=True)
class TokenResult:
    """Holds what the head of one task makes of the tokens of one second pass."""

    task: int
    logits: Tensor  # [n, C] float32 on the CPU


@dataclass(frozen=True)
class Asked:
    """Holds what heads were asked of second passes: what they say may still be on its way."""

    second_passes: Sequence[SecondPass]
    together: Mapping[int, Sequence[int]]  # the second passes of each task whose heads kernels ask
    apart: Mapping[int, Sequence[int]]  # and of those of the others
    said: Sequence[Tensor]  # one for all that were asked together, and two for each of the others


class Heads:
    """The heads of all tasks, asked of many embeddings at once.

        asked = heads.ask(second_passes, embeddings)
        results = heads.results(asked)  # waits for a GPU, which the host need not do before

    On a GPU they answer together (`kernels.heads.fused`), but for those with a hidden layer. These, and on a
    CPU all, answer one after the other, each for all its embeddings.
    """

    def __init__(self, heads: Sequence[TaskHead]) -> None:
        self._heads = heads
        self._classes = [len(one.head.weight) for one in heads]
        self._plain = {
            task for task, one in enumerate(heads) if one.head.hidden is None and not one.each_token
        }
        # What the last batch asked, as items and as numbers of y: the device need not be told of it again.
        self._sent: tuple[list[tuple[int, int]], Tensor, int] | None = None

    def ask(self, second_passes: Sequence[SecondPass], embeddings: Tensor) -> Asked:
        """Asks the heads of all tasks of second passes. embeddings [n, P], one of each second pass."""
        rows: dict[int, list[int]] = defaultdict(list)
        for row, one in enumerate(second_passes):
            for task in one.expert_set:
                rows[task].append(row)
        plain = self._plain if backend_for(embeddings.device) == "fused" else set[int]()
        together = {task: rows[task] for task in sorted(rows.keys() & plain)}
        apart = {task: rows[task] for task in sorted(rows.keys() - plain)}
        found = [self._asked_together(together, embeddings)] if together else []
        own_rows = gathered_rows(embeddings, list(apart.values())) if apart else []
        for task, own in zip(apart, own_rows, strict=True):
            found += self._heads[task].logits_and_scores(own)
        return Asked(second_passes, together, apart, found)

    def results(self, asked: Asked) -> dict[int, list[HeadResult]]:
        """The results of every sample's second passes by its number in the batch, tasks ascending."""
        if not asked.said:
            return {}
        found = downloaded(*asked.said)
        of_tasks = self._of_tasks(asked.together, found.pop(0)) if asked.together else {}
        for task, logits, scores in zip(asked.apart, found[::2], found[1::2], strict=True):
            finite = logits.isfinite().all(1).tolist()
            of_tasks[task] = _results(task, logits, scores.tolist(), finite)
        rows = {**asked.together, **asked.apart}
        results: dict[int, list[HeadResult]] = defaultdict(list)
        for task in sorted(rows):
            for row, result in zip(rows[task], of_tasks[task], strict=True):
                results[asked.second_passes[row].sample].append(result)
        return results

    def _asked_together(self, rows: Mapping[int, Sequence[int]], embeddings: Tensor) -> Tensor:
        """What the kernels say of the rows of each task, one task after the other."""
        asked = [(task, row) for task, own in rows.items() for row in own]
        if self._sent is None or self._sent[0] != asked:
            items, size = self._kernels.items(asked)
            self._sent = asked, uploaded(torch.tensor(items, dtype=torch.int64), embeddings.device), size
        return self._kernels(embeddings, *self._sent[1:])

    def _of_tasks(self, rows: Mapping[int, Sequence[int]], said: Tensor) -> dict[int, list[HeadResult]]:
        """The results of each task in what the kernels said, which is on the CPU.

        Logits are copies of each task's, as whoever keeps an answer should not keep those of all tasks.
        """
        of_tasks: dict[int, list[HeadResult]] = {}
        sizes = [len(own) * (self._classes[task] + BESIDE) for task, own in rows.items()]
        parts = said.split(sizes)  # type: ignore[no-untyped-call]
        for (task, own), part in zip(rows.items(), parts, strict=True):
            logits, beside = part.view(len(own), -1).split([self._classes[task], BESIDE], dim=1)
            numbers: list[list[float]] = beside.tolist()
            scores, finite = [one[:SCORES] for one in numbers], [one[SCORES] > 0 for one in numbers]
            of_tasks[task] = _results(task, logits.clone(), scores, finite)
        return of_tasks

    @cached_property
    def _kernels(self) -> fused.Heads:
        """The heads as the kernels read them. Made of numbers that the host waits for."""
        from mass_serve.kernels.heads import fused

        return fused.Heads(
            [one.for_kernels() if task in self._plain else None for task, one in enumerate(self._heads)]
        )


def _results(
    task: int, logits: Tensor, scores: Sequence[Sequence[float]], finite: Sequence[bool]
) -> list[HeadResult]:
    """The results of one task, of logits [n, C]."""
    rows = zip(logits.unbind(), scores, finite, strict=True)
    return [HeadResult(task, *of_row) for of_row in rows]


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
