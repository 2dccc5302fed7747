"""The projection-residual router: the task whose subspace explains a feature best leaves the least of it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mass_serve.kernels import subspace_residuals
from mass_serve.router.prior import Prior
from mass_serve.router.selection import routing_coefficients, select_expert_sets

# Of a row's length: so much of it lies beyond the rows before it where they are clearly independent. What
# rounding to 4 bits leaves is near 1.
LEAST_PIVOT = 1e-2


def orthonormal_rows(blocks: Tensor) -> Tensor:
    """An orthonormal basis [T, R, D], float32, of the row space of each block [T, R, D].

    Stored blocks are rounded to 16 bits or fewer, after which their rows are orthonormal to three digits or
    one; the projector must be exact, or the rounding shows in the residuals. With B B^T = L L^T, the basis is
    L^-1 B, at half of what Householder's QR costs, which the blocks get whose rows are nearly dependent.
    """
    rows = blocks.double()
    lower, failed = torch.linalg.cholesky_ex(rows @ rows.mT)
    identity = torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device).expand_as(lower)
    basis = torch.linalg.solve_triangular(lower, identity, upper=False) @ rows
    pivots = lower.diagonal(dim1=1, dim2=2)
    dependent = (failed != 0) | (pivots < LEAST_PIVOT * rows.norm(dim=2)).any(1)
    if dependent.any():
        basis[dependent] = torch.linalg.qr(rows[dependent].mT).Q.mT
    found: Tensor = basis.float().contiguous()
    return found


def explained_share(features: Tensor, residuals: Tensor) -> Tensor:
    """The share of each feature's squared length that lies in each task's subspace, [B, T] on the CPU.

    features [B, D], and their residuals [B, T] on the CPU.
    """
    squares = features.float().square().sum(1, keepdim=True).cpu()
    return (1 - residuals.square() / squares.clamp_min(torch.finfo(torch.float32).tiny)).clamp_min(0)


class TaskSubspaces:
    """The subspace of every task at one linear, and how far features lie outside of each."""

    def __init__(self, task_blocks: Tensor) -> None:
        """`task_blocks` [T, R, D] holds vh of every task, of the linear that the features enter.

        A task whose block is 0 has no subspace, and explains nothing.
        """
        has_own = task_blocks.flatten(1).any(1).view(-1, 1, 1)
        self.projectors = orthonormal_rows(task_blocks) * has_own  # [T, R, D] float32

    @property
    def nbytes(self) -> int:
        """The memory of the projectors."""
        return self.projectors.nbytes

    def residuals(self, features: Tensor) -> Tensor:
        """`|| z - vh_t^T vh_t z ||_2` of features z [B, D] and every task: [B, T] float32."""
        return subspace_residuals(features, self.projectors)


class SubspaceRouter(TaskSubspaces):
    """The router of MASS (arXiv:2504.05342, section 4): residuals, standardised softmax, threshold."""

    def __init__(self, task_blocks: Tensor, *, temperature: float, threshold: float, top_k: int) -> None:
        """Keeps, of the tasks whose coefficient is strictly above `threshold`, the `top_k` largest.

        Raises ValueError for settings out of range.
        """
        if not (math.isfinite(temperature) and temperature > 0):
            raise ValueError(f"the router's temperature must be above 0, got {temperature}")
        if not 0 <= threshold < 1:
            raise ValueError(f"the router's threshold must be in [0, 1), got {threshold}")
        if top_k < 1:
            raise ValueError(f"the router's top_k must be 1 or more, got {top_k}")
        super().__init__(task_blocks)
        self.threshold = threshold
        self._temperature, self._top_k = temperature, top_k

    def coefficients(self, residuals: Tensor, candidates: Tensor, prior: Prior | None = None) -> Tensor:
        """The routing coefficients [B, T] among the tasks of the mask `candidates` [B, T] (bool, CPU).

        Rows of one pool share theirs (`router.pooled`).
        """
        return routing_coefficients(residuals, candidates, self._temperature, prior)

    def expert_sets(self, coefficients: Tensor) -> list[tuple[int, ...]]:
        """The expert set, sorted, of each row of routing coefficients [B, T]."""
        return select_expert_sets(coefficients, self.threshold, self._top_k)
