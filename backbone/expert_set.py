"""The little that an expert set adds to the shared encoder and the tasks' blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor

from mass_serve.kernels import Delta


@dataclass(frozen=True, eq=False)
class ExpertSet:
    """The weights of one expert set. It holds its tasks' blocks, which stay in memory for as long as it does.

    A linear that some of the tasks left alone has a change of the others.
    """

    tasks: tuple[int, ...]
    vectors: Mapping[str, Tensor]  # every parameter but the linears' weights, whole (not its change)
    deltas: Mapping[str, Delta]  # by linear; their biases are those of `vectors`
    materialised: bool  # every linear has a weight of the set's own
    changed: frozenset[str]  # those of `vectors` that are not the pretrained ones

    def renumbered(self, tasks: tuple[int, ...]) -> ExpertSet:
        """The same weights for a bank that has the same tasks in the same order under other numbers."""
        return replace(self, tasks=tasks)

    @cached_property
    def nbytes(self) -> int:
        """The memory that this set takes beside the shared blocks."""
        own = sum(delta.nbytes for delta in self.deltas.values())
        return own + sum(self.vectors[name].nbytes for name in self.changed)
