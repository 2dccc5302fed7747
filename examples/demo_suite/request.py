"""What a generator is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Split = Literal["training", "held_out"]


@dataclass(frozen=True)
class Request:
    """One picture: its label, the side of the split it is for, and its number among its label's pictures."""

    label: str
    split: Split
    number: int
