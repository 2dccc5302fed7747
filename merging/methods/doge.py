"""DOGE: all task vectors get one addition that makes them interfere less (arXiv:2501.01230).

For a matrix, with `c_t = 0.07 / ||d_t||_F`, `c = sum_t c_t` and `S = sum_t c_t d_t`, Delta minimises

    sum_t || rows(d_t * (d_t - S - c Delta)) ||^2,   rows(A)_r = sum_j A_rj

by 400 steps of Adam from 0 on, whose gradients stay clear of the subspace that the tasks share: the first
n / 6 left singular vectors of the tasks' first n / T side by side. Then each task keeps, of what it had and
the addition, the elements that were among the largest 30 % of its task vector:

    merged = pretrained + sum_t c_t trim_t(d_t + Delta)

Trimming needs a whole task vector, of its matrices; what is no matrix stays as pretrained.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mass_serve.merging.formats import task_singular_vectors
from mass_serve.merging.methods.adam import adam
from mass_serve.merging.methods.method import MergingMethod, TaskVectors
from mass_serve.merging.methods.ties import kept_threshold

# As the paper has them.
STEPS = 400
LEARNING_RATE = 1e-4
SCALE = 0.07
SHARED_DIRECTIONS = 6  # one in so many
KEPT_SHARE = 0.3


def doge(changes: Tensor, thresholds: Tensor) -> Tensor:
    """Merges the changes of one parameter [T, ...] -> [...].

    thresholds [T] as `doge_thresholds` gives them.
    """
    if changes.ndim != 3:
        return torch.zeros_like(changes[0])
    norms = changes.flatten(1).norm(dim=1)
    scales = torch.where(norms > 0, SCALE / norms, 0.0)
    adjusted = changes + _addition(changes, scales)
    kept = torch.where(changes.abs() >= thresholds.view(-1, 1, 1), adjusted, 0.0)
    return torch.einsum("t,toi->oi", scales, kept)


def doge_thresholds(vectors: TaskVectors) -> Tensor:
    """The magnitude from which on elements are kept of each task's matrices, [T]."""
    matrices = [name for name in vectors.names if vectors.change(0, name).ndim == 2]
    return torch.tensor(
        [
            kept_threshold(torch.cat([vectors.change(task, name).flatten() for name in matrices]), KEPT_SHARE)
            for task in range(vectors.tasks)
        ]
    )


def _addition(changes: Tensor, scales: Tensor) -> Tensor:
    """Delta [d_out, d_in] of the changes [T, d_out, d_in] of a matrix."""
    summed = torch.einsum("t,toi->oi", scales, changes)
    # [T, d_out]: the residual of each row where Delta is 0.
    residual = (changes * (changes - summed)).sum(2)
    shared = _shared_directions(changes)

    def gradient(addition: Tensor) -> Tensor:
        left = residual - scales.sum() * torch.einsum("toi,oi->to", changes, addition)
        found = -2 * scales.sum() * torch.einsum("to,toi->oi", left, changes)
        return found - shared @ (shared.T @ found)

    return adam(torch.zeros_like(summed), gradient, LEARNING_RATE, STEPS)


def _shared_directions(changes: Tensor) -> Tensor:
    """The left singular vectors [d_out, n / 6] of the tasks' own side by side."""
    directions = min(changes.shape[1:])
    own = [task_singular_vectors(change, directions // len(changes), exact=True).u for change in changes]
    side_by_side = torch.cat(own, dim=1)
    rank = min(directions // SHARED_DIRECTIONS, side_by_side.shape[1])
    return task_singular_vectors(side_by_side, rank, exact=True).u


DOGE = MergingMethod(
    "doge",
    "DOGE",
    "2501.01230",
    frozenset({"blocks"}),
    doge,
    further=lambda vectors: (doge_thresholds(vectors),),
)
