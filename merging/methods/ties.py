"""TIES: trim, elect a sign, merge (arXiv:2306.01708).

With `trim(d)` the elements of a task vector that are among its largest 20 % in magnitude, others 0, and
`sign = sgn(sum_t trim(d_t))`, element by element:

    ties(d_1..d_T) = mean of those trim(d_t) whose sign is `sign`;   merged = pretrained + c ties(d_1..d_T)

Trimming needs a whole task vector, the rest one parameter at a time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mass_serve.merging.methods.method import MergingMethod, TaskVectors

# The share of a task vector that is kept, as the paper has it.
KEPT_SHARE = 0.2


def ties_threshold(task_vector: Tensor) -> float:
    """Returns the magnitude from which on an element is among the largest 20 % of a whole task vector [P]."""
    return kept_threshold(task_vector, KEPT_SHARE)


def kept_threshold(task_vector: Tensor, share: float) -> float:
    """Returns the magnitude from which on an element is among the largest of a whole task vector [P]."""
    cut = task_vector.numel() - int(task_vector.numel() * share)
    return float(task_vector.abs().kthvalue(max(1, cut)).values)


def ties_thresholds(vectors: TaskVectors) -> Tensor:
    """The thresholds of whole task vectors, [T]; one of them is in memory at a time."""
    return torch.tensor(
        [
            ties_threshold(torch.cat([vectors.change(task, name).flatten() for name in vectors.names]))
            for task in range(vectors.tasks)
        ]
    )


def ties(changes: Tensor, thresholds: Tensor) -> Tensor:
    """Merges the changes of one parameter: trim, elect a sign, mean of the elements that have it.

    changes [T, ...], thresholds [T] as `ties_threshold` gives them -> [...]. The sign of an element is that
    of the trimmed sum; where no task kept an element, the result is 0.
    """
    column = thresholds.view(-1, *[1] * (changes.ndim - 1))
    trimmed = torch.where(changes.abs() >= column, changes, 0.0)
    agreeing = torch.where(trimmed.sum(0) > 0, trimmed.clamp_min(0), trimmed.clamp_max(0))
    return agreeing.sum(0) / (agreeing != 0).sum(0).clamp_min(1)


TIES = MergingMethod(
    "ties",
    "TIES",
    "2306.01708",
    frozenset({"finetuned", "data"}),
    ties,
    further=lambda vectors: (ties_thresholds(vectors),),
)
