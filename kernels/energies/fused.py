"""Shares of energy within task subspaces in one Triton kernel.

For the tokens z of one sample, the orthonormal rows p_i of task t, which are rows `offsets[t]:offsets[t + 1]`
of the directions, and their weights w_i, in a program of their own:

    energy_t  = mean over z of sum_i (p_i . z)^2 / |z|^2
    profile_t = mean over z of sum_i w_i (p_i . z)^2 / |z|^2

x [B, L, D] of any floating dtype, its tokens anywhere in memory as long as each is contiguous; rows [C, D]
float32 or float16, or where x is bfloat16 their two parts [C, 2 D] -> energies [B, T] float32, or with
weights [B, 2 T]. Only those are written, every element once. Products are nearly in float32: of bfloat16 one
with each part, else by `kernels.gpu_architecture.product_precision`. Unlike in a residual nothing cancels
here. Every sum runs in one fixed order, along D, of each tile of D the high parts before the low, then the
rows, then L, and no tile depends on B, so that a sample's bits depend on that sample alone. One launch, no
scratch and nothing read on the host: a CUDA graph may hold it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mass_serve.kernels.energies.directions import TaskDirections
from mass_serve.kernels.gpu_architecture import architecture_of, product_precision, warps_of

# Multiples of what the tensor cores take; not tuned on a GPU yet.
BLOCK_ROWS = 32
BLOCK_COLUMNS = 64  # at most: a task of a lower rank has fewer
BLOCK_SUM = 64
LEAST_COLUMNS = 16
THREADS = 256  # with 128, profiles spill registers on sm_90
TINY: tl.constexpr = tl.constexpr(torch.finfo(torch.float32).tiny)


@triton.jit(do_not_specialize=["tokens", "num_tasks"])
def energies_kernel(
    x,
    directions,
    weights,
    offsets,
    energies,
    sample_stride,
    token_stride,
    tokens,
    width,
    num_tasks,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SUM: tl.constexpr,
    PROFILED: tl.constexpr,
    IN_PARTS: tl.constexpr,
    UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """`energies[b, t]`, and its profile, for the sample b and the task t of the program's two indices."""
    sample, task = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    first_row = tl.load(offsets + task)
    rank = tl.load(offsets + task + 1) - first_row
    row_stride = width * 2 if IN_PARTS else width
    basis = directions + first_row.to(tl.int64) * row_stride
    rows, columns, sums = tl.arange(0, ROWS), tl.arange(0, COLUMNS), tl.arange(0, SUM)
    shares = tl.zeros((ROWS,), dtype=tl.float32)
    profile = tl.zeros((ROWS,), dtype=tl.float32)
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
        weighted = tl.zeros((ROWS,), dtype=tl.float32)
        for least in range(0, rank, COLUMNS):
            r = least + columns
            coordinates = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
            for start in range(0, width, SUM):
                d = start + sums
                of_width = d < width
                z = tl.load(own + d[None, :], mask=inside[:, None] & of_width[None, :], other=0.0)
                places = basis + r[None, :] * row_stride + d[:, None]
                of_rows = (r < rank)[None, :] & of_width[:, None]
                p = tl.load(places, mask=of_rows, other=0.0)
                if UPCAST or not IN_PARTS:
                    z, p = z.to(tl.float32), p.to(tl.float32)
                coordinates = tl.dot(z, p, coordinates, input_precision=PRECISION)
                if IN_PARTS:
                    low = tl.load(places + width, mask=of_rows, other=0.0)
                    coordinates = tl.dot(z, low.to(z.dtype), coordinates, input_precision=PRECISION)
            squares = coordinates * coordinates
            within += tl.sum(squares, axis=1)
            if PROFILED:
                w = tl.load(weights + first_row + r, mask=r < rank, other=0.0)
                weighted += tl.sum(squares * w[None, :], axis=1)
        shares += within / tl.maximum(whole, TINY)
        if PROFILED:
            profile += weighted / tl.maximum(whole, TINY)
    if PROFILED:
        tl.store(energies + sample * 2 * num_tasks + task, tl.sum(shares) / tokens)
        tl.store(energies + sample * 2 * num_tasks + num_tasks + task, tl.sum(profile) / tokens)
    else:
        tl.store(energies + sample * num_tasks + task, tl.sum(shares) / tokens)


INTERPRETED = not isinstance(energies_kernel, triton.JITFunction)


def subspace_energies(x: Tensor, directions: TaskDirections) -> Tensor:
    """The energies of this module's docstring. Raises ValueError for parts with x of another dtype."""
    if directions.in_parts and x.dtype != torch.bfloat16:
        raise ValueError(f"directions in parts of bfloat16 measure bfloat16, and x is {x.dtype}")
    x = x if x.stride(2) == 1 else x.contiguous()
    samples, tokens, width = x.shape
    weights = directions.weights
    energies = x.new_empty(samples, directions.columns, dtype=torch.float32)
    architecture = architecture_of(x.device)
    largest = triton.next_power_of_2(max(directions.ranks))
    energies_kernel[(samples, len(directions.ranks))](
        x,
        directions.rows,
        directions.rows if weights is None else weights,
        directions.offsets,
        energies,
        x.stride(0),
        x.stride(1),
        tokens,
        width,
        len(directions.ranks),
        ROWS=BLOCK_ROWS,
        COLUMNS=min(max(largest, LEAST_COLUMNS), BLOCK_COLUMNS),
        SUM=BLOCK_SUM,
        PROFILED=weights is not None,
        IN_PARTS=directions.in_parts,
        UPCAST=INTERPRETED,
        PRECISION=product_precision(x.dtype if directions.in_parts else torch.float32, architecture),
        num_warps=warps_of(THREADS, architecture),
    )
    return energies
