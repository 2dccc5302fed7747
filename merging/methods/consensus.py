"""Consensus: the sum of the task vectors where the TALL masks of enough tasks want it (arXiv:2405.07813).

With `d = sum_t d_t` and the masks of `merging.methods.tall_masks` (section 4.3 of the paper):

    consensus(d_1..d_T) = d where sum_t mask_t >= 2, else 0;   merged = pretrained + c consensus(d_1..d_T)
"""

from __future__ import annotations

import torch
from torch import Tensor

from mass_serve.merging.methods.method import MergingMethod, TaskVectors
from mass_serve.merging.methods.tall_masks import tall_mask
from mass_serve.merging.methods.task_arithmetic import TASK_ARITHMETIC

# Where no data are there to search it on: the middle of the paper's grid.
USUAL_LAMBDA = 0.4
# How many tasks must want an element, as the paper has it.
AGREEING_TASKS = 2


def consensus(changes: Tensor, tall_lambdas: Tensor) -> Tensor:
    """Merges the changes of one parameter: their sum where at least two tasks' TALL masks want it.

    changes [T, ...], tall_lambdas [T] -> [...]; elements of one task or none are left as pretrained.
    """
    multi_task = changes.sum(0)
    masks = [
        tall_mask(change, multi_task, float(value))
        for change, value in zip(changes, tall_lambdas, strict=True)
    ]
    return torch.where(torch.stack(masks).sum(0) >= AGREEING_TASKS, multi_task, 0.0)


def _usual_lambdas(vectors: TaskVectors) -> tuple[Tensor, ...]:
    return (torch.full((vectors.tasks,), USUAL_LAMBDA),)


CONSENSUS = MergingMethod(
    "consensus",
    "consensus",
    "2405.07813",
    frozenset({"finetuned", "data"}),
    consensus,
    coefficient=TASK_ARITHMETIC.coefficient,
    further=_usual_lambdas,
)
