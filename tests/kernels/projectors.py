"""Random subspaces for the tests of residuals and energies."""

from __future__ import annotations

import torch
from torch import Tensor


def random_projectors(tasks: int, rank: int, width: int) -> Tensor:
    """Orthonormal rows [T, R, D] in float64."""
    columns: Tensor = torch.linalg.qr(torch.randn(tasks, width, rank, dtype=torch.float64)).Q
    return columns.transpose(1, 2).contiguous()
