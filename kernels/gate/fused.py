"""The gate of an MLP in one Triton kernel.

    y = act(a) * b,   x = [a, b]

x [N, 2 M], y [N, M] of one dtype, computed in float32. Only y is written, every element once.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from mass_serve.kernels.activation_names import Activation
from mass_serve.kernels.low_rank.triton_kernels import activate

BLOCK = 1024


@triton.jit(do_not_specialize=["elements"])
def gate_kernel(x, y, elements, width, ACTIVATION: tl.constexpr, BLOCK: tl.constexpr):
    """BLOCK elements of this module's docstring."""
    places = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = places < elements
    firsts = x + places + places // width * width
    a = tl.load(firsts, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(firsts + width, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + places, (activate(a, ACTIVATION) * b).to(y.dtype.element_ty), mask=inside)


def gate(x: Tensor, activation: Activation) -> Tensor:
    """The product of this module's docstring."""
    x = x.contiguous()
    y = x.new_empty(x.shape[0], x.shape[1] // 2)
    gate_kernel[(triton.cdiv(y.numel(), BLOCK),)](
        x, y, y.numel(), y.shape[1], ACTIVATION=activation, BLOCK=BLOCK
    )
    return y
