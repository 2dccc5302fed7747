"""The class vectors of all routed tasks, side by side: the nearest of each task's in one product."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mass_serve import kernels
from mass_serve.backbone import MultiLabel
from mass_serve.engine.heads import TaskHead
from mass_serve.kernels.rows import padded_column_count


class ClassVectors:
    """The heads of T tasks, asked for the largest cosine alone (see `router.head_scores`).

    Heads with a hidden layer have vectors of their own to compare: those are asked one after the other.
    """

    def __init__(self, heads: Sequence[TaskHead]) -> None:
        self._hidden = {task: one for task, one in enumerate(heads) if one.head.hidden is not None}
        plain = [task for task in range(len(heads)) if task not in self._hidden]
        vectors = [heads[task].head.directions for task in plain]
        counts = torch.tensor([len(own) for own in vectors], dtype=torch.long)
        together = torch.cat(vectors) if vectors else torch.empty(0, 0)
        padding = padded_column_count(len(together)) - len(together)
        self._vectors = F.pad(together, (0, 0, 0, padding))  # [C, P], C a multiple of 16
        device = together.device
        self._owners = torch.tensor(plain, dtype=torch.long).repeat_interleave(counts).to(device)
        of_labels = [isinstance(heads[task].head.labelling, MultiLabel) for task in plain]
        self._sized = torch.tensor(of_labels, dtype=torch.bool).repeat_interleave(counts).to(device)
        self._tasks = len(heads)

    @property
    def nbytes(self) -> int:
        """The memory of the vectors, which the heads have once more."""
        return self._vectors.nbytes

    def largest_cosines(self, embeddings: Tensor) -> Tensor:
        """The largest cosine [B, T] of each embedding [B, P] to a class vector of each task's head.

        Where an input may have any number of a task's labels it is the largest in size.
        """
        largest = torch.full((len(embeddings), self._tasks), -torch.inf, device=embeddings.device)
        if len(self._owners):
            unit = F.normalize(embeddings.float(), dim=1)
            cosines = kernels.linear(unit, self._vectors)[:, : len(self._owners)]
            cosines = torch.where(self._sized, cosines.abs(), cosines)
            largest.scatter_reduce_(1, self._owners.expand_as(cosines), cosines, "amax")
        for task, one in self._hidden.items():
            largest[:, task] = one.scores(embeddings)[:, 0]
        return largest
