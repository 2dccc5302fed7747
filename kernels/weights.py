"""A linear's weight, or a table of words, in any of the forms in which a pass reads it."""

from __future__ import annotations

from torch import Tensor

from mass_serve.kernels.activation_names import Activation
from mass_serve.kernels.activations import activate_
from mass_serve.kernels.quantised import QuantisedWeight, quantised_product_
from mass_serve.kernels.reordered import ReorderedWeight
from mass_serve.kernels.rows import add_product_, product

Weight = Tensor | QuantisedWeight | ReorderedWeight
Table = Tensor | QuantisedWeight


def rows_of(table: Table, rows: Tensor) -> Tensor:
    """The rows [n, D] that `rows` [n] int64 numbers, in memory of their own."""
    return table[rows].widened() if isinstance(table, QuantisedWeight) else table[rows]


def base_product(x: Tensor, weight: Tensor | ReorderedWeight) -> Tensor:
    """`x W^T` [N, d_out] for x [N, d_in], in memory without gaps, where an activation's bits are the same."""
    if isinstance(weight, ReorderedWeight):
        return weight.product(x)
    return product(x, weight.T).contiguous()


def finished(y: Tensor, x: Tensor, weight: Weight | None, activation: Activation | None) -> Tensor:
    """`act(y + x W^T)` [N, d_out], or `act(y)` without a weight; y may be overwritten."""
    match weight:
        case QuantisedWeight():  # which rounds once, behind the activation
            quantised_product_(y, x, weight, y, activation)
            return y
        case ReorderedWeight():
            y = weight.product(x, added=y)
        case Tensor():
            add_product_(y, x, weight.T)
    return y if activation is None else activate_(y, activation)
