"""The projection-residual router: the task whose subspace explains a feature best leaves the least of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mass_serve.kernels import subspace_residuals
from mass_serve.router.config import RouterConfig
from mass_serve.router.selection import routing_coefficients, select_expert_sets


def orthonormal_rows(blocks: Tensor) -> Tensor:
    """An orthonormal basis [T, R, D], float32, of the row space of each block [T, R, D].

    Stored blocks are rounded to 16 bits, after which their rows are orthonormal to three digits only;
    the projector must be exact, or the rounding shows in the residuals.
    """
    basis: Tensor = torch.linalg.qr(blocks.double().transpose(1, 2)).Q  # [T, D, R]
    return basis.transpose(1, 2).float().contiguous()


def explained_share(features: Tensor, residuals: Tensor) -> Tensor:
    """The share of each feature's squared length that lies in each task's subspace, [B, T] on the CPU.

    features [B, D], and their residuals [B, T] on the CPU.
    """
    squares = features.float().square().sum(1, keepdim=True).cpu()
    return (1 - residuals.square() / squares.clamp_min(torch.finfo(torch.float32).tiny)).clamp_min(0)


@dataclass(frozen=True)
class Routing:
    """The router's decision for B samples among T tasks."""

    residuals: Tensor  # [B, T] float32, on the CPU
    routing_coefficients: Tensor  # [B, T] float32, on the CPU; 0 for tasks that are no candidates
    expert_sets: list[tuple[int, ...]]  # [B], each sorted


class SubspaceRouter:
    """The router of MASS (arXiv:2504.05342): residuals, standardised softmax, threshold."""

    def __init__(self, config: RouterConfig, task_blocks: Tensor) -> None:
        """`task_blocks` [T, R, D] holds vh of every task, of the linear that the feature enters."""
        self.config = config
        self.projectors = orthonormal_rows(task_blocks)  # [T, R, D] float32

    def residuals(self, features: Tensor) -> Tensor:
        """The residuals [B, T], float32 on the CPU, of features [B, D]."""
        return subspace_residuals(features, self.projectors).cpu()

    def route(self, features: Tensor, candidates: Tensor) -> Routing:
        """Routes features [B, D] among the tasks that the mask `candidates` [B, T] (bool, CPU) allows."""
        residuals = self.residuals(features)
        coefficients = routing_coefficients(residuals, candidates, self.config.temperature)
        expert_sets = select_expert_sets(coefficients, self.config.threshold, self.config.top_k)
        return Routing(residuals, coefficients, expert_sets)
