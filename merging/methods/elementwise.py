"""Other people's ways to merge models, element by element: TIES, TALL masks, consensus.

Each works on what T tasks changed in one parameter, `changes [T, ...]`, so that a merge of many large models
needs the memory of one parameter of each.
"""

from __future__ import annotations

import torch
from torch import Tensor

# The share of a task vector that TIES keeps, and the tasks that must want a parameter in a consensus: both as
# their papers have them.
TIES_KEPT = 0.2
CONSENSUS_TASKS = 2


def ties_threshold(task_vector: Tensor) -> float:
    """The magnitude from which on an element is among the largest 20 % of a whole task vector [P]."""
    cut = task_vector.numel() - int(task_vector.numel() * TIES_KEPT)
    return float(task_vector.abs().kthvalue(max(1, cut)).values)


def ties(changes: Tensor, thresholds: Tensor) -> Tensor:
    """TIES (arXiv:2306.01708): trim, elect a sign, mean of the elements that have it; `[T, ...] -> [...]`.

    `thresholds` [T] are those of `ties_threshold`. The sign of an element is that of the trimmed sum.
    """
    column = thresholds.view(-1, *[1] * (changes.ndim - 1))
    trimmed = torch.where(changes.abs() >= column, changes, 0.0)
    agreeing = torch.where(trimmed.sum(0) > 0, trimmed.clamp_min(0), trimmed.clamp_max(0))
    return agreeing.sum(0) / (agreeing != 0).sum(0).clamp_min(1)


def tall_mask(change: Tensor, multi_task: Tensor, tall_lambda: float) -> Tensor:
    """The elements that a task needs of the multi-task vector (TALL-masks, arXiv:2405.07813, equation 4).

    `|change| > |multi_task - change| tall_lambda`, bool.
    """
    return change.abs() > (multi_task - change).abs() * tall_lambda


def consensus(changes: Tensor, tall_lambdas: Tensor) -> Tensor:
    """The sum of the changes where at least two tasks' TALL masks want it (arXiv:2405.07813, section 4.3).

    changes [T, ...], tall_lambdas [T] -> [...]; elements of one task or none are left as pretrained.
    """
    multi_task = changes.sum(0)
    masks = [
        tall_mask(change, multi_task, float(value))
        for change, value in zip(changes, tall_lambdas, strict=True)
    ]
    return torch.where(torch.stack(masks).sum(0) >= CONSENSUS_TASKS, multi_task, 0.0)
