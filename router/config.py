"""The router's settings, as the manifest of a store records them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class RouterConfig:
    """Where the router looks and how it decides (arXiv:2504.05342, section 4)."""

    layer: int  # the block, counted from 0, whose MLP input is the router's feature
    token: Literal["class", "mean"] = "class"
    temperature: float = 1.0
    threshold: float = 0.2  # a coefficient strictly above it keeps its task
    top_k: int = 3

    def __post_init__(self) -> None:
        if self.layer < 0:
            raise ValueError(f"the router's layer must be 0 or more, got {self.layer}")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(f"the router's temperature must be above 0, got {self.temperature}")
        if not 0 <= self.threshold < 1:
            raise ValueError(f"the router's threshold must be in [0, 1), got {self.threshold}")
        if self.top_k < 1:
            raise ValueError(f"the router's top_k must be 1 or more, got {self.top_k}")
