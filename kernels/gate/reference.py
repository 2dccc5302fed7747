"""The gate of an MLP in plain PyTorch: the definition, and what runs on a CPU.

    y = act(a) * b,   x = [a, b]

x [N, 2 M], y [N, M] of one floating dtype, computed in float32; nothing is mutated. With silu it is SwiGLU's
gate, with gelu GeGLU's (arXiv:2002.05202).
"""

from __future__ import annotations

from torch import Tensor

from mass_serve.kernels.activation_names import Activation
from mass_serve.kernels.activations import CHUNK, activate_


def gate(x: Tensor, activation: Activation) -> Tensor:
    """The product of this module's docstring."""
    rows, width = x.shape
    y, step = x.new_empty(rows, width // 2), max(1, CHUNK // width)
    for start in range(0, rows, step):
        a, b = x[start : start + step].float().chunk(2, dim=1)
        y[start : start + step] = activate_(a.clone(), activation).mul_(b)
    return y
