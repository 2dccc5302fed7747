"""The description of a merging method: its name, its paper, what it needs and its function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

# blocks: a store's singular blocks are enough; finetuned: the whole fine-tuned models; data: labelled images
# of the tasks, on which a coefficient is searched.
Need = Literal["blocks", "finetuned", "data"]


class TaskVectors(Protocol):
    """The task vectors of several tasks, one parameter at a time."""

    @property
    def tasks(self) -> int:
        """T, how many there are."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """The parameters, in order."""
        ...

    def change(self, task: int, name: str) -> Tensor:
        """Returns `finetuned - pretrained` of one parameter of one task, in float32."""
        ...


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
    # The coefficient where no data are there to search it on.
    coefficient: float = 1.0
    # What `merge` takes beside the changes, of whole task vectors.
    further: Callable[[TaskVectors], tuple[Tensor, ...]] | None = None
    # The whole change is scaled to the mean norm of the task vectors.
    keeps_norm: bool = False
