"""Task arithmetic: the sum of the task vectors, scaled (arXiv:2212.04089); weight averaging is its c = 1 / T.

    merged = pretrained + c sum_t d_t

With c = 1 / T the result is the mean of the fine-tuned weights, a model soup (arXiv:2203.05482).
"""

from __future__ import annotations

from torch import Tensor

from mass_serve.merging.methods.method import MergingMethod


def summed_changes(changes: Tensor) -> Tensor:
    """Computes the sum of the tasks' changes of one parameter, [T, ...] -> [...]."""
    return changes.sum(0)


def averaged_changes(changes: Tensor) -> Tensor:
    """Computes the mean of the tasks' changes of one parameter, [T, ...] -> [...]."""
    return changes.mean(0)


def averaging_coefficient(tasks: int) -> float:
    """Returns the c = 1 / T with which task arithmetic is weight averaging."""
    return 1 / tasks


def moved(pretrained: Tensor, direction: Tensor, coefficient: float) -> Tensor:
    """Computes `pretrained + c direction` of one parameter in float32 or better, in its dtype."""
    return (pretrained.float() + coefficient * direction).to(pretrained.dtype)


TASK_ARITHMETIC = MergingMethod(
    "task_arithmetic",
    "arithmetic",
    "2212.04089",
    frozenset({"blocks", "data"}),
    summed_changes,
    coefficient=0.4,  # what arXiv:2306.01708 takes without validation data
)
WEIGHT_AVERAGING = MergingMethod(
    "weight_averaging", "averaging", "2203.05482", frozenset({"blocks"}), averaged_changes
)
