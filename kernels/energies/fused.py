"""Shares of energy within task subspaces in one Triton kernel.

For the tokens z of one sample and the orthonormal rows P_t [R, D] of task t, in a program of their own:

    energy_t = mean over z of |P_t z|^2 / |z|^2

x [B, L, D] of any floating dtype, its tokens anywhere in memory as long as each is contiguous; projectors
[T, R, D] float32 -> energies [B, T] float32. Only those are written, every element once. Products are in
float32, summed from three of tf32, which is nearly float32: unlike in a residual nothing cancels here. Every
sum runs in one fixed order, along D, then R, then L, and no tile depends on B, so that a sample's bits depend
on that sample alone. One launch, no scratch and nothing read on the host: a CUDA graph may hold it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

# Multiples of what the tensor cores take; not tuned on a GPU yet.
BLOCK_ROWS = 32
BLOCK_COLUMNS = 64
BLOCK_SUM = 32
ENERGY_WARPS = 4
TINY: tl.constexpr = tl.constexpr(torch.finfo(torch.float32).tiny)


@triton.jit
def energies_kernel(
    x,
    projectors,
    energies,
    sample_stride,
    token_stride,
    tokens,
    width,
    num_tasks,
    rank,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SUM: tl.constexpr,
):
    """`energies[b, t]` for the sample b and the task t of the program's two indices."""
    sample, task = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    basis = projectors + task * rank * width
    rows, columns, sums = tl.arange(0, ROWS), tl.arange(0, COLUMNS), tl.arange(0, SUM)
    shares = tl.zeros((ROWS,), dtype=tl.float32)
    for first in range(0, tokens, ROWS):
        own = x + sample * sample_stride + (first + rows).to(tl.int64)[:, None] * token_stride
        inside = first + rows < tokens
        whole = tl.zeros((ROWS,), dtype=tl.float32)
        for start in range(0, width, SUM):
            d = start + sums
            z = tl.load(own + d[None, :], mask=inside[:, None] & (d < width)[None, :], other=0.0)
            z = z.to(tl.float32)
            whole += tl.sum(z * z, axis=1)
        within = tl.zeros((ROWS,), dtype=tl.float32)
        for least in range(0, rank, COLUMNS):
            r = least + columns
            coordinates = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
            for start in range(0, width, SUM):
                d = start + sums
                of_width = d < width
                z = tl.load(own + d[None, :], mask=inside[:, None] & of_width[None, :], other=0.0)
                p = tl.load(
                    basis + r[None, :] * width + d[:, None],
                    mask=(r < rank)[None, :] & of_width[:, None],
                    other=0.0,
                )
                coordinates = tl.dot(z.to(tl.float32), p, coordinates, input_precision="tf32x3")
            within += tl.sum(coordinates * coordinates, axis=1)
        shares += within / tl.maximum(whole, TINY)
    tl.store(energies + sample * num_tasks + task, tl.sum(shares) / tokens)


def subspace_energies(x: Tensor, projectors: Tensor) -> Tensor:
    """The energies [B, T] of this module's docstring."""
    x = x if x.stride(2) == 1 else x.contiguous()
    (samples, tokens, width), (num_tasks, rank, _) = x.shape, projectors.shape
    energies = projectors.new_empty(samples, num_tasks)
    energies_kernel[(samples, num_tasks)](
        x,
        projectors.contiguous(),
        energies,
        x.stride(0),
        x.stride(1),
        tokens,
        width,
        num_tasks,
        rank,
        ROWS=BLOCK_ROWS,
        COLUMNS=BLOCK_COLUMNS,
        SUM=BLOCK_SUM,
        num_warps=ENERGY_WARPS,
    )
    return energies
