"""Adam over one matrix whose gradient is a formula."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def adam(start: Tensor, gradient: Callable[[Tensor], Tensor], learning_rate: float, steps: int) -> Tensor:
    """Returns what so many steps of Adam (arXiv:1412.6980) make of a tensor; `start` stays as it is."""
    found = start.clone()
    optimiser = torch.optim.Adam([found], lr=learning_rate)
    for _ in range(steps):
        found.grad = gradient(found)
        optimiser.step()
    return found
