"""The activations of the encoders' MLPs, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from mass_serve.kernels.activation_names import Activation, HeadActivation

# Elements that an activation works on at a time: the temporaries stay in the processor's cache.
CHUNK = 1 << 18
# PyTorch gives each thread at least so many elements, and all of them equally many but the last.
LEAST_OF_A_THREAD = 1 << 15
# Two of the longest vectors in which a thread computes, of float32: a multiple leaves it no remainder.
LANES = 64

LOG2_E = 1.4426950408889634

# Of gelu_tanh: 2 sqrt(2 / pi), and the cube's share (arXiv:1606.08415, section 2).
TANH_SLOPE = 1.5957691216057308
TANH_CUBE = 0.044715


def activate_(x: Tensor, activation: HeadActivation) -> Tensor:
    """Makes x its activation, which is computed in float32, and returns it.

        quick_gelu(x) = x sigmoid(1.702 x)
        gelu(x)       = x (1 + erf(x / sqrt(2))) / 2
        gelu_tanh(x)  = x (1 + tanh(z / 2)) / 2 = x sigmoid(z),  z = 2 sqrt(2 / pi) (x + 0.044715 x^3)
        silu(x)       = x sigmoid(x)
        tanh(x)       = 2 sigmoid(2 x) - 1
        relu(x)       = max(x, 0)

    On a CPU sigmoid's vector loop and its remainder loop round differently, as those of tanh and exp2 do, so
    an element's bits would depend on its place in memory. So sigmoid is spelled out, `1 / (1 + 2^-z')` with
    `z' = z log2(e)`, and powers of 2 are computed where no thread has a remainder; those of e, whose bits
    depend on no place, take three times as long. The error function of a tensor of a single element is
    rounded otherwise than that of the same element among others.
    """
    if activation == "relu":
        return x.relu_()
    if activation == "tanh":
        return x.copy_(x.float().mul_(-2.0).exp_().add_(1.0).reciprocal_().mul_(2.0).sub_(1.0))
    rows = x.view(-1, x.shape[-1])
    for part in rows.split(max(1, CHUNK // rows.shape[1])):  # type: ignore[no-untyped-call]
        if activation == "gelu":  # bfloat16's own remainder loop rounds differently on a CPU
            part.copy_(torch.ops.aten.gelu_(part.float()))
        else:
            part.div_(_powers_of_two(_negative_exponent(part.float(), activation)).add_(1.0))
    return x


def _powers_of_two(exponents: Tensor) -> Tensor:
    """`2^x` [...] of float32 x [...], with the same bits for an element wherever it lies."""
    if exponents.device.type != "cpu":
        return exponents.exp2_()
    count = exponents.numel()
    threads = max(1, min(torch.get_num_threads(), -(-count // LEAST_OF_A_THREAD)))
    if missing := -count % (LANES * threads):
        filled = torch.nn.functional.pad(exponents.flatten(), (0, missing))
        return filled.exp2_()[:count].view(exponents.shape)
    return exponents.exp2_()


def _negative_exponent(x: Tensor, activation: Activation) -> Tensor:
    """`-z log2(e)` [...] of the activation `x sigmoid(z)`, in memory of its own."""
    match activation:
        case "quick_gelu":
            return x * (-1.702 * LOG2_E)
        case "gelu_tanh":
            slope = TANH_SLOPE * LOG2_E
            return (x * x).mul_(-slope * TANH_CUBE).sub_(slope).mul_(x)
        case "silu":
            return x * -LOG2_E
        case _:
            raise ValueError(f"there is no activation {activation!r}")
