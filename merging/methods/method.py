"""The description of a merging method: its name, its paper, what it needs and its function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

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
    # The pure function of one parameter: it takes what the tasks changed of it and what the method needs
    # beside that, as its docstring has them, and gives the change [...] that is added to the pretrained
    # parameter, scaled by the method's coefficient where it has one.
    merge: Callable[..., Tensor]
