"""The little that an expert set adds to the shared encoder and the tasks' blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from mass_serve.kernels import Delta, OneTask, SeveralTasks


@dataclass(frozen=True, eq=False)
class ExpertSet:
    """The weights of one expert set, as far as they are not the shared blocks.

    A linear that some of the tasks left alone has a change of the others. Raises ValueError where a change is
    of tasks that the set does not have.
    """

    tasks: tuple[int, ...]
    vectors: dict[str, Tensor]  # every parameter but the linears' weights, whole (not its change)
    deltas: dict[str, Delta]  # by linear; their biases are those of `vectors`
    materialised: bool  # every linear has a weight of the set's own

    def __post_init__(self) -> None:
        for linear, delta in self.deltas.items():
            if not set(_tasks_of(delta)) <= set(self.tasks):
                raise ValueError(f"{linear}: a change of other tasks in the expert set {self.tasks}")

    def renumbered(self, tasks: tuple[int, ...]) -> ExpertSet:
        """The same weights for a bank that has the same tasks in the same order under other numbers."""
        numbers = dict(zip(self.tasks, tasks, strict=True))
        deltas = {linear: _renumbered(delta, numbers) for linear, delta in self.deltas.items()}
        return ExpertSet(tasks, self.vectors, deltas, self.materialised)

    @property
    def nbytes(self) -> int:
        """The memory that this set takes beside the shared blocks."""
        own = sum(delta.nbytes for delta in self.deltas.values())
        return own + sum(vector.nbytes for vector in self.vectors.values())


def _tasks_of(delta: Delta) -> tuple[int, ...]:
    """The tasks whose blocks a change uses."""
    match delta:
        case OneTask(task=task):
            return (task,)
        case SeveralTasks(tasks=tasks):
            return tasks
        case _:
            return ()


def _renumbered(delta: Delta, numbers: Mapping[int, int]) -> Delta:
    match delta:
        case OneTask(task=task):
            return replace(delta, task=numbers[task])
        case SeveralTasks(tasks=tasks):
            return replace(delta, tasks=tuple(numbers[task] for task in tasks))
        case _:
            return delta
