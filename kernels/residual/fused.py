"""All tasks' residuals in two Triton kernels, one pass over the features for the first.

For a feature z and the orthonormal rows P_t [R, D] of task t:

    c = z [P_1; ...; P_T]^T                  [B, T R]    coefficients
    residual_t = || z - c_t P_t ||_2         [B, T]      residuals

z [B, D] of any floating dtype, projectors [T, R, D] float32 -> residuals [B, T] float32; only those and the
scratch c are written. Products are nearly in float32 (see `kernels.gpu_architecture.product_precision`), and
the difference is formed before it is squared: `|z|^2 - |P_t z|^2` would lose a small residual to
cancellation. Every sum runs in one fixed order and no tile depends on B, so a row's bits depend on that row
alone.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from mass_serve.kernels.gpu_architecture import architecture_of, product_precision, warps_of

BLOCK_ROWS = 16
BLOCK_COLUMNS = 32
BLOCK_SUM = 64
THREADS = 128


@triton.jit(do_not_specialize=["batch"])
def coefficients_kernel(
    z,
    projectors,
    c,
    batch,
    width,
    columns_of_c,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SUM: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """`c = z projectors^T`: z [batch, width], projectors [columns_of_c, width], c [batch, columns_of_c]."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    inside, wanted = rows < batch, columns < columns_of_c
    sums = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for start in range(0, width, SUM):
        d = start + tl.arange(0, SUM)
        a = tl.load(
            z + rows[:, None] * width + d[None, :], mask=inside[:, None] & (d < width)[None, :], other=0.0
        )
        b = tl.load(
            projectors + columns[None, :] * width + d[:, None],
            mask=wanted[None, :] & (d < width)[:, None],
            other=0.0,
        )
        sums = tl.dot(a.to(tl.float32), b, sums, input_precision=PRECISION)
    tl.store(
        c + rows[:, None] * columns_of_c + columns[None, :], sums, mask=inside[:, None] & wanted[None, :]
    )


@triton.jit(do_not_specialize=["batch", "num_tasks"])
def residuals_kernel(
    z,
    projectors,
    c,
    residuals,
    batch,
    width,
    num_tasks,
    rank,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SUM: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """`residuals[:, t] = || z - c_t P_t ||` for the task t of the program's second index."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    task = tl.program_id(1).to(tl.int64)
    inside = rows < batch
    energy = tl.zeros((ROWS,), dtype=tl.float32)
    for start in range(0, width, COLUMNS):
        d = start + tl.arange(0, COLUMNS)
        of_width = d < width
        projected = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
        for first in range(0, rank, SUM):
            r = first + tl.arange(0, SUM)
            a = tl.load(
                c + rows[:, None] * (num_tasks * rank) + task * rank + r[None, :],
                mask=inside[:, None] & (r < rank)[None, :],
                other=0.0,
            )
            b = tl.load(
                projectors + (task * rank + r[:, None]) * width + d[None, :],
                mask=(r < rank)[:, None] & of_width[None, :],
                other=0.0,
            )
            projected = tl.dot(a, b, projected, input_precision=PRECISION)
        own = tl.load(
            z + rows[:, None] * width + d[None, :], mask=inside[:, None] & of_width[None, :], other=0.0
        )
        outside = own.to(tl.float32) - projected
        energy += tl.sum(outside * outside, axis=1)
    tl.store(residuals + rows * num_tasks + task, tl.sqrt(energy), mask=inside)


def subspace_residuals(z: Tensor, projectors: Tensor) -> Tensor:
    """The residuals [B, T] of this module's docstring."""
    (batch, width), (num_tasks, rank, _) = z.shape, projectors.shape
    z = z.contiguous()
    c = projectors.new_empty(batch, num_tasks * rank)
    residuals = projectors.new_empty(batch, num_tasks)
    row_blocks = triton.cdiv(batch, BLOCK_ROWS)
    architecture = architecture_of(z.device)
    options = {
        "ROWS": BLOCK_ROWS,
        "COLUMNS": BLOCK_COLUMNS,
        "SUM": BLOCK_SUM,
        "PRECISION": product_precision(projectors.dtype, architecture),
        "num_warps": warps_of(THREADS, architecture),
    }
    coefficients_kernel[(row_blocks, triton.cdiv(c.shape[1], BLOCK_COLUMNS))](
        z, projectors, c, batch, width, c.shape[1], **options
    )
    residuals_kernel[(row_blocks, num_tasks)](
        z, projectors, c, residuals, batch, width, num_tasks, rank, **options
    )
    return residuals
