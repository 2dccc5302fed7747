"""The segmented low-rank linear: one product whose rows carry the expert deltas of their own segment."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mass_serve.kernels.activation_names import Activation
from mass_serve.kernels.activations import activate_
from mass_serve.kernels.backend import backend_for
from mass_serve.kernels.low_rank import reference
from mass_serve.kernels.low_rank.deltas import (
    BaseOnly,
    Delta,
    FoldedSides,
    MaterialisedWeight,
    OneTask,
    SeveralTasks,
    SmallSides,
    TaskBlock,
)
from mass_serve.kernels.quantised import QuantisedWeight, quantised_product_
from mass_serve.kernels.reordered import ReorderedWeight
from mass_serve.kernels.rows import linear as plain_linear
from mass_serve.kernels.weights import Weight

__all__ = [
    "BaseOnly",
    "Delta",
    "FoldedSides",
    "MaterialisedWeight",
    "OneTask",
    "SeveralTasks",
    "SmallSides",
    "TaskBlock",
    "linear",
    "segmented_linear",
]


def segmented_linear(
    x: Tensor,
    weight: Weight,
    deltas: Sequence[Delta],
    row_offsets: Sequence[int],
    activation: Activation | None = None,
    skip: Tensor | None = None,
) -> Tensor:
    """y [N, d_out] of `kernels.low_rank.reference`, by the form that fits the device of x."""
    if isinstance(weight, Tensor) and backend_for(x.device) == "fused":
        from mass_serve.kernels.low_rank import fused

        return fused.segmented_linear(x, weight, deltas, row_offsets, activation, skip)
    return reference.segmented_linear(x, weight, deltas, row_offsets, activation, skip)


def linear(
    x: Tensor,
    weight: Weight,
    bias: Tensor | None = None,
    activation: Activation | None = None,
    skip: Tensor | None = None,
) -> Tensor:
    """`y = act(x W^T + b) + skip` [N, d_out]: the segmented linear of one base-only segment."""
    if isinstance(weight, ReorderedWeight):
        return _reordered_linear(x, weight, bias, activation, skip)
    if isinstance(weight, QuantisedWeight):
        y = x.new_empty(len(x), weight.shape[0])
        quantised_product_(y, x, weight, bias, activation)
        return y if skip is None else y.add_(skip)
    if backend_for(x.device) == "fused":
        from mass_serve.kernels.low_rank import fused

        return fused.linear(x, weight, bias, activation, skip)
    return plain_linear(x, weight, bias, activation, skip)


def _reordered_linear(
    x: Tensor,
    weight: ReorderedWeight,
    bias: Tensor | None,
    activation: Activation | None,
    skip: Tensor | None,
) -> Tensor:
    if activation is None:
        return weight.product(x, bias, skip)
    y = activate_(weight.product(x, bias), activation)
    return y if skip is None else y.add_(skip)
