"""The description of a merging method: its name, its paper and what it needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# blocks: a store's singular blocks are enough; finetuned: the whole fine-tuned models; data: labelled images
# of the tasks, on which a coefficient is searched.
Need = Literal["blocks", "finetuned", "data"]


@dataclass(frozen=True)
class MergingMethod:
    """A published way to make one change of several tasks' changes."""

    name: str  # in reports and journals
    title: str  # in tables
    paper: str  # its number on arXiv
    needs: frozenset[Need]
