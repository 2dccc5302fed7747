"""aTLAS: a task made of the task vectors of others, each scaled in every parameter (arXiv:2407.02880).

With delta_tp the change that task t makes to parameter p, the change of the new task is

    delta_p = sum over tasks t of c_tp delta_tp

where the coefficients c were learned from labelled inputs. A matrix keeps its largest singular triplets, as
that of any other task does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mass_serve.merging.formats import (
    DenseDelta,
    PackedSingularVectors,
    TaskChange,
    TaskSingularVectors,
    task_singular_vectors,
)


def scaled_change(
    changes: Sequence[TaskChange | PackedSingularVectors[Any]], coefficients: Sequence[float], rank: int
) -> TaskChange:
    """Computes `sum of c_t delta_t` of one parameter, factored to `rank` where the changes are, in float32.

    Raises ValueError for no change, and for changes of one parameter in two formats.
    """
    if not changes:
        raise ValueError("a task that is made of others needs at least one of them")
    unpacked = [
        change.unpacked() if isinstance(change, PackedSingularVectors) else change for change in changes
    ]
    blocks = [change for change in unpacked if isinstance(change, TaskSingularVectors)]
    if not blocks:
        deltas = [change.values.float() for change in changes if isinstance(change, DenseDelta)]
        scales = torch.tensor(coefficients).view(-1, *[1] * deltas[0].ndim)
        return DenseDelta((torch.stack(deltas) * scales).sum(0))
    if len(blocks) < len(changes):
        raise ValueError("the changes of one parameter must all be factored or all be dense")
    return task_singular_vectors(_scaled_product(blocks, coefficients), rank)


def _scaled_product(blocks: Sequence[TaskSingularVectors], coefficients: Sequence[float]) -> Tensor:
    """`sum of c_t u_t diag(s_t) vh_t` [d_out, d_in], as one product of the blocks side by side."""
    left = [block.u.float() * (c * block.s.float()) for block, c in zip(blocks, coefficients, strict=True)]
    return torch.cat(left, dim=1) @ torch.cat([block.vh.float() for block in blocks])
