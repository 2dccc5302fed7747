"""The activations that an encoder or a head may have, by name; `activations` computes them."""

from __future__ import annotations

from typing import Literal, get_args

Activation = Literal["quick_gelu", "gelu", "gelu_tanh", "silu"]
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
# Of the hidden layer of a classification head.
HeadActivation = Literal["quick_gelu", "gelu", "gelu_tanh", "silu", "tanh", "relu"]
