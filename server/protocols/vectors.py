"""Embeddings as protocols send them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

BYTES_A_VALUE = 20  # of JSON, about


def unit_length(vectors: Sequence[Tensor]) -> Tensor:
    """Returns vectors [P], all of one P, as rows [n, P] of unit length."""
    return F.normalize(torch.stack(list(vectors)), dim=1)
