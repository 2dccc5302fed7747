"""Thin changes: products of two thin matrices, as LoRA adapters are, which are never multiplied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mass_serve.merging.formats.low_rank import TaskSingularVectors


@dataclass(frozen=True)
class ThinDelta:
    """A change `left @ right` of one matrix. Of r = 0 it is no change at all."""

    left: Tensor  # [d_out, r]
    right: Tensor  # [r, d_in]

    def __post_init__(self) -> None:
        if self.left.ndim != 2 or self.right.ndim != 2 or self.left.shape[1] != self.right.shape[0]:
            raise ValueError(
                f"left [d_out, r] and right [r, d_in] must share r; "
                f"got {tuple(self.left.shape)} and {tuple(self.right.shape)}"
            )

    @classmethod
    def none(cls, shape: tuple[int, int]) -> ThinDelta:
        """The change of a matrix [d_out, d_in] that was left alone."""
        rows, columns = shape
        return cls(torch.zeros(rows, 0), torch.zeros(0, columns))

    @classmethod
    def stacked(cls, parts: Sequence[ThinDelta]) -> ThinDelta:
        """The change of a matrix whose rows are those of several, one below the other.

        The left sides become the blocks of a diagonal, the right sides are stacked, in float64.
        """
        right = torch.cat([part.right.double() for part in parts])
        left, columns = [], 0
        for part in parts:
            own = len(part.right)
            left.append(F.pad(part.left.double(), (columns, len(right) - columns - own)))
            columns += own
        return cls(torch.cat(left), right)

    @property
    def shape(self) -> tuple[int, int]:
        """d_out and d_in."""
        return self.left.shape[0], self.right.shape[1]

    def dense(self) -> Tensor:
        """Computes `left @ right` [d_out, d_in], in float32."""
        return (self.left.double() @ self.right.double()).float()

    def norm(self) -> float:
        """Computes the Frobenius norm of the product, `tr((left^T left)(right right^T))^(1/2)`."""
        left, right = self.left.double(), self.right.double()
        return float(((left.T @ left) * (right @ right.T)).sum().clamp_min(0).sqrt())

    def singular_vectors(self) -> TaskSingularVectors:
        """Computes all singular triplets of the product in float64, without forming it.

        With `left = Q1 R1` and `right^T = Q2 R2` the product is `Q1 (R1 R2^T) Q2^T`, so that the singular
        vectors of the small matrix in the middle, turned by Q1 and Q2, are its own. Triplets that are zero
        but for rounding are left out: the rank that remains is the product's, which may be 0.
        """
        q1, r1 = torch.linalg.qr(self.left.double())
        q2, r2 = torch.linalg.qr(self.right.double().T)
        u, s, vh = torch.linalg.svd(r1 @ r2.T, full_matrices=False)
        # As usual for a numerical rank, but of the factors' size: in the product they may cancel.
        size = max(len(q1), len(q2)) * r1.norm() * r2.norm()
        rank = int((s > torch.finfo(torch.float64).eps * size).sum())
        return TaskSingularVectors(q1 @ u[:, :rank], s[:rank], vh[:rank] @ q2.T)
