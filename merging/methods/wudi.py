"""WUDI: the merged change interferes least with each task's, measured by that task's own (arXiv:2503.08099).

The rows of a task vector span what its linear's inputs were. For a matrix, m minimises

    sum_t || (m - d_t) d_t^T ||_F^2 / || d_t ||_F^2

by 300 steps of Adam from `m = sum_t d_t` on. With `A = sum_t d_t^T d_t / ||d_t||^2` and
`B = sum_t d_t d_t^T d_t / ||d_t||^2` the gradient is `2 (m A - B)`. What is no matrix is averaged.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mass_serve.merging.methods.adam import adam
from mass_serve.merging.methods.method import MergingMethod

# As the paper has them.
STEPS = 300
LEARNING_RATE = 1e-5


def wudi(changes: Tensor) -> Tensor:
    """Merges the changes of one parameter [T, ...] -> [...]: a matrix by the least interference."""
    total = changes.sum(0)
    if total.ndim != 2:
        return total / len(changes)
    a, b = total.new_zeros(total.shape[1], total.shape[1]), torch.zeros_like(total)
    for change in changes:
        if (squared := change.square().sum()) > 0:
            gram = change.T @ change / squared
            a, b = a + gram, b + change @ gram
    return adam(total, lambda merged: 2 * (merged @ a - b), LEARNING_RATE, STEPS)


WUDI = MergingMethod("wudi", "WUDI", "2503.08099", frozenset({"blocks"}), wudi)
