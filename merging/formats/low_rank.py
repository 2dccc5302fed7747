"""Task singular vectors: the truncated SVD of one task's weight change."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mass_serve.merging.formats.leading import leading_singular_vectors


@dataclass(frozen=True)
class TaskSingularVectors:
    """The truncated SVD of one matrix: `delta ~ u @ diag(s) @ vh` (arXiv:2412.00081, section 3)."""

    u: Tensor  # [d_out, R], orthonormal columns
    s: Tensor  # [R], descending, >= 0
    vh: Tensor  # [R, d_in], orthonormal rows

    def __post_init__(self) -> None:
        rank = self.s.shape[0]
        if self.u.ndim != 2 or self.vh.ndim != 2 or self.u.shape[1] != rank or self.vh.shape[0] != rank:
            raise ValueError(
                f"u [d_out, R], s [R] and vh [R, d_in] must share R; "
                f"got {tuple(self.u.shape)}, {tuple(self.s.shape)}, {tuple(self.vh.shape)}"
            )

    @property
    def rank(self) -> int:
        """R, the number of singular vectors kept."""
        return self.s.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """The shape [d_out, d_in] of the matrix."""
        return self.u.shape[0], self.vh.shape[1]

    def leading(self, rank: int) -> TaskSingularVectors:
        """Returns the largest `rank` triplets, or all of them where there are fewer."""
        return TaskSingularVectors(self.u[:, :rank], self.s[:rank], self.vh[:rank])


def task_singular_vectors(delta: Tensor, rank: int, exact: bool = False) -> TaskSingularVectors:
    """Computes the `rank` largest singular triplets of `delta` [d_out, d_in], in float32.

    They are found without decomposing the whole matrix where what they then miss is measured to be
    negligible (`merging.formats.leading` has the bound), unless `exact` is asked for.
    """
    if delta.ndim != 2:
        raise ValueError(f"a matrix was expected, got shape {tuple(delta.shape)}")
    if not 0 <= rank <= min(delta.shape):
        raise ValueError(f"rank must be in 0..{min(delta.shape)} for shape {tuple(delta.shape)}, got {rank}")
    if rank == 0:
        return TaskSingularVectors(delta.new_empty(len(delta), 0).float(), torch.empty(0), delta[:0].float())
    if delta.shape[0] > delta.shape[1]:
        turned = task_singular_vectors(delta.T, rank, exact)
        return TaskSingularVectors(turned.vh.T.contiguous(), turned.s, turned.u.T.contiguous())
    found = None if exact else leading_singular_vectors(delta.float(), rank)
    u, s, vh = found or _exact_singular_vectors(delta.double(), rank)
    return TaskSingularVectors(u.float().contiguous(), s.float(), vh.float().contiguous())


def _exact_singular_vectors(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Goes through the float64 Gram matrix of the shorter side, several times quicker than a full SVD of
    a tall matrix. The Gram matrix squares the singular values, so those below 1e-8 of the largest are
    noise; the QR step keeps the other side orthonormal even there (a change of lower rank than asked
    gets exact zeros in effect, and orthonormal vectors that multiply them).
    """
    _, vectors = torch.linalg.eigh(matrix @ matrix.T)  # ascending eigenvalues
    u = vectors[:, -rank:].flip(1)  # [d_out, R]
    q, r = torch.linalg.qr(matrix.T @ u)  # columns of matrix.T @ u are orthogonal, so r is diagonal
    signed = r.diagonal()
    return u, signed.abs(), (q * torch.where(signed < 0, -1.0, 1.0)).T
