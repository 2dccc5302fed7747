"""Which of an operation's two forms runs: the fused one on CUDA, the reference elsewhere.

Tests and tuning override the choice: under `TRITON_INTERPRET=1`, set before Triton is imported, the fused
kernels also run on a CPU, slowly, and are held against their references there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

import torch

Backend = Literal["fused", "reference"]

_override: ContextVar[Backend | None] = ContextVar("kernel_backend", default=None)


def backend_for(device: torch.device) -> Backend:
    """Returns what runs on that device: "fused" or "reference"."""
    chosen = _override.get()
    if chosen is not None:
        return chosen
    return "fused" if device.type == "cuda" else "reference"


@contextmanager
def backend(name: Backend) -> Iterator[None]:
    """Inside the block every operation runs in that form, on any device."""
    token = _override.set(name)
    try:
        yield
    finally:
        _override.reset(token)
