"""How parameters are named, and the shapes of the operations that all parts are made of."""

from __future__ import annotations

Shapes = dict[str, tuple[int, ...]]


def weight_of(operation: str) -> str:
    """The parameter that holds the weight of a linear or LayerNorm."""
    return f"{operation}.weight"


def bias_of(operation: str) -> str:
    """The parameter that holds the bias of a linear or LayerNorm."""
    return f"{operation}.bias"


def linear_shapes(name: str, d_out: int, d_in: int, has_bias: bool = True) -> Shapes:
    """The shapes of the weight [d_out, d_in] of a linear, and of its bias where it has one."""
    return {weight_of(name): (d_out, d_in), **({bias_of(name): (d_out,)} if has_bias else {})}


def norm_shapes(name: str, width: int) -> Shapes:
    """The shapes of a LayerNorm's weight and bias, [D] each."""
    return {weight_of(name): (width,), bias_of(name): (width,)}
