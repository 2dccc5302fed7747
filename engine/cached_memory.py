"""Memory that PyTorch keeps of what was freed."""

from __future__ import annotations

import torch

from mass_serve.backbone.device_turn import device_turn


def release_cached_memory() -> None:
    """Gives the GPU back what the allocator keeps, so that it can be cut into pieces of other sizes."""
    if torch.cuda.is_available():
        with device_turn(torch.device("cuda")):
            torch.cuda.empty_cache()
