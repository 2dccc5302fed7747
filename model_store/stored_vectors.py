"""The task vectors of a store's tasks, as far as its blocks keep them, and what methods merge of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from mass_serve.merging import DenseDelta, TaskChange, merged_parameter
from mass_serve.merging.methods import TSV_M, MergingMethod, merged_direction
from mass_serve.merging.threads import side_by_side
from mass_serve.model_store.combined_experts import opened_changes
from mass_serve.model_store.format.entries import TaskEntry
from mass_serve.model_store.progress import Progress, silent
from mass_serve.model_store.store import Store


@dataclass(frozen=True)
class StoredVectors:
    """Task vectors in files of a store, read one parameter at a time."""

    shapes: dict[str, tuple[int, ...]]  # of every parameter
    read: Sequence[Callable[[str], TaskChange]]  # of each task

    @property
    def tasks(self) -> int:
        """T, how many there are."""
        return len(self.read)

    @property
    def names(self) -> Sequence[str]:
        """The parameters, in forward order."""
        return tuple(self.shapes)

    def change(self, task: int, name: str) -> Tensor:
        """Returns `u diag(s) vh`, or the delta, of one parameter of one task, in float32."""
        found = self.read[task](name)
        if isinstance(found, DenseDelta):
            return found.values.float()
        return (found.u.float() * found.s.float()) @ found.vh.float()

    def changes(self, name: str) -> list[TaskChange]:
        """Returns every task's change of one parameter, as it is stored."""
        return [read(name) for read in self.read]


@contextmanager
def stored_vectors(store: Store, tasks: Sequence[TaskEntry]) -> Iterator[StoredVectors]:
    """Opens the blocks of some tasks. Raises IntegrityError."""
    with ExitStack() as stack:
        read = [stack.enter_context(opened_changes(store, task)) for task in tasks]
        yield StoredVectors(store.manifest.backbone.parameter_shapes(), read)


def merged_changes(
    method: MergingMethod, vectors: StoredVectors, progress: Progress = silent
) -> dict[str, Tensor]:
    """Merges the change of every parameter: what is added to the pretrained ones, unscaled."""
    if method is not TSV_M:
        return merged_direction(method, vectors, functools.partial(progress, "merging"))

    # TSV-M takes the blocks as they are.
    def merge(name: str) -> Tensor:
        return merged_parameter(torch.zeros(vectors.shapes[name]), vectors.changes(name))

    merged = {}
    for done, (name, change) in enumerate(
        zip(vectors.names, side_by_side(merge, vectors.names), strict=True), 1
    ):
        merged[name] = change
        progress("merging", done, len(vectors.names))
    return merged
