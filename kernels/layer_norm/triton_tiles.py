"""LayerNorm of a tile of rows, in the kernel that reads them next.

    y = (x - mean(x)) / sqrt(var(x) + eps) * w + b

All in float32, and rounded to the dtype of x at the end. A row is read twice: for its mean and variance, and
where it is normalised.
"""

import triton
import triton.language as tl


@triton.jit
def row_statistics(x, inside, width, eps, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr):
    """`mean(x)` and `1 / sqrt(var(x) + eps)` [BLOCK_M] of the rows `inside` of x, in one reading.

    The variance is of differences to means: each block of BLOCK_K columns to its own, and the blocks' means
    to that of all before (Chan, Golub, LeVeque: "Updating Formulae and a Pairwise Algorithm for Computing
    Sample Variances", 1979).
    """
    k = tl.arange(0, BLOCK_K)
    places = tl.arange(0, BLOCK_M)[:, None] * width + k[None, :]
    mean = tl.zeros((BLOCK_M,), dtype=tl.float32)
    squares = tl.zeros((BLOCK_M,), dtype=tl.float32)
    for start in range(0, width, BLOCK_K):
        of_k = k < width - start
        values = tl.load(x + start + places, mask=inside[:, None] & of_k[None, :], other=0.0).to(tl.float32)
        count = tl.minimum(width - start, BLOCK_K)
        mean_of_k = tl.sum(values, 1) / count
        centred = tl.where(of_k[None, :], values - mean_of_k[:, None], 0.0)
        apart = mean_of_k - mean
        share = count / (start + count)
        mean += apart * share
        squares += tl.sum(centred * centred, 1) + apart * apart * (share * start)
    return mean, 1.0 / tl.sqrt(squares / width + eps)


@triton.jit
def normalised(x, start, of_k, mask, places, norm):
    """The columns x [BLOCK_M, BLOCK_K] of rows behind their LayerNorm, which are written, too.

    `norm` is of `row_statistics`, pointers to w, b and the first row of y, and which rows of y to write; x
    are the columns from `start` on, those `of_k` inside, and `mask` and `places` what they were loaded by.
    """
    mean, scale, weight, bias, y, written = norm
    k = tl.arange(0, x.shape[1])
    w = tl.load(weight + start + k, mask=of_k, other=0.0).to(tl.float32)
    b = tl.load(bias + start + k, mask=of_k, other=0.0).to(tl.float32)
    centred = x.to(tl.float32) - mean[:, None]
    rounded = (centred * scale[:, None] * w[None, :] + b[None, :]).to(y.dtype.element_ty)
    tl.store(y + start + places, rounded, mask=mask & written[:, None])
    return rounded


@triton.jit
def fill_with_zeros(y, inside, width, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr):
    """Writes zeros into the rows `inside` of y."""
    k = tl.arange(0, BLOCK_K)
    places = tl.arange(0, BLOCK_M)[:, None] * width + k[None, :]
    zeros = tl.zeros((BLOCK_M, BLOCK_K), dtype=y.dtype.element_ty)
    for start in range(0, width, BLOCK_K):
        tl.store(y + start + places, zeros, mask=inside[:, None] & (k < width - start)[None, :])
