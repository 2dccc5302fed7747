"""How long each stage of a batch takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

ENGINE_STAGES = ("first_pass", "route", "second_pass", "heads")


@dataclass
class StageClock:
    """Wall-clock seconds of each stage of a batch; a stage that is entered again adds up."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(ENGINE_STAGES, 0.0))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times the block; on a GPU it ends when the work does, not when it was launched."""
        start = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[name] += time.perf_counter() - start
