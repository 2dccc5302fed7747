"""What a task changes of the encoder, whether it has blocks of its own or is a combination of others'."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from mass_serve.merging import DenseDelta, TaskChange, TaskSingularVectors
from mass_serve.merging.methods.atlas import scaled_change
from mass_serve.merging.threads import side_by_side
from mass_serve.model_store.format.entries import TaskEntry
from mass_serve.model_store.format.experts import TaskExperts
from mass_serve.model_store.store import Store

COEFFICIENTS = "coefficients"  # [S, N]: of S tasks in the N parameters of the encoder, in forward order


@dataclass(frozen=True)
class Combination:
    """How a created task's change is made of the changes of S others, one parameter at a time."""

    coefficients: Mapping[str, Sequence[float]]  # by parameter, of each of the others
    ranks: Mapping[str, int]  # of every factored parameter
    shapes: Mapping[str, tuple[int, ...]]  # of every parameter

    @classmethod
    def of(cls, store: Store, entry: TaskEntry) -> Combination:
        """Reads the coefficients of a created task. Raises IntegrityError."""
        shapes = store.manifest.backbone.parameter_shapes()
        return cls(
            dict(zip(shapes, _coefficients(store, entry).T.tolist(), strict=True)),
            store.layout.ranks_of(entry),
            shapes,
        )

    def change(self, name: str, of_others: Sequence[TaskChange]) -> TaskChange:
        """The change of one parameter, by those that the others make to it."""
        if of_others:
            return scaled_change(of_others, self.coefficients[name], self.ranks.get(name, 0))
        if name not in self.ranks:
            return DenseDelta(torch.zeros(self.shapes[name]))
        d_out, d_in = self.shapes[name]
        return TaskSingularVectors(torch.zeros(d_out, 0), torch.zeros(0), torch.zeros(0, d_in))

    def experts(self, others: Sequence[TaskExperts]) -> TaskExperts:
        """All changes, by all that the others make."""
        names = list(self.shapes)
        changes = side_by_side(lambda name: self.change(name, [one.change(name) for one in others]), names)
        found = dict(zip(names, changes, strict=True))
        return TaskExperts(
            {name: one for name, one in found.items() if isinstance(one, TaskSingularVectors)},
            {name: one.values for name, one in found.items() if isinstance(one, DenseDelta)},
        )


def _coefficients(store: Store, entry: TaskEntry) -> Tensor:
    """The coefficients [S, N] of a created task, 0 x N where it changes nothing."""
    assert entry.combination is not None
    shape = len(entry.combination.tasks), len(store.manifest.backbone.parameter_shapes())
    if entry.changes_file is None:
        return torch.empty(shape)
    with store.tensors(entry.changes_file) as tensors:
        tensors.check_shapes({COEFFICIENTS: shape})
        return tensors.read(COEFFICIENTS).float()


def load_experts(store: Store, name: str) -> TaskExperts:
    """Loads what a task changes of the encoder. Raises TaskError for an unknown task, and IntegrityError."""
    entry = store.task(name)
    if entry.combination is None:
        return store.load_experts(name)
    others = [store.load_experts(other) for other in entry.combination.tasks]
    return Combination.of(store, entry).experts(others)


@contextmanager
def opened_changes(store: Store, entry: TaskEntry) -> Iterator[Callable[[str], TaskChange]]:
    """Opens what a task changes of the encoder, to be read one parameter at a time. Raises IntegrityError."""
    with ExitStack() as stack:
        if entry.combination is None:
            tensors = stack.enter_context(store.experts_file(entry))
            yield partial(store.layout_of(entry).read_change, read=tensors.read)
            return
        tasks = map(store.task, entry.combination.tasks)
        others = [stack.enter_context(opened_changes(store, task)) for task in tasks]
        combination = Combination.of(store, entry)
        yield lambda name: combination.change(name, [read(name) for read in others])


def source_of(store: Store, entry: TaskEntry) -> tuple[str, str]:
    """What is equal for tasks that change the same: the path of their file, and what tells its content."""
    if entry.combination is None:
        return entry.experts_file, entry.files[entry.experts_file]
    others = [store.task(name) for name in entry.combination.tasks]
    hashes = [task.files[task.experts_file] for task in others]
    own = entry.changes_file
    return entry.coefficients_file, " ".join([*([] if own is None else [entry.files[own]]), *hashes])
