"""Formats of what one task changed of a parameter; one file a format, each a type of its own."""

from mass_serve.merging.formats.dense import DenseDelta
from mass_serve.merging.formats.low_rank import TaskSingularVectors, task_singular_vectors
from mass_serve.merging.formats.packed import PackedSingularVectors
from mass_serve.merging.formats.rounding import RoundedVectors, rounded
from mass_serve.merging.formats.thin import ThinDelta

# What one task changed of one parameter, in whichever format it is kept.
TaskChange = TaskSingularVectors | DenseDelta

__all__ = [
    "DenseDelta",
    "PackedSingularVectors",
    "RoundedVectors",
    "TaskChange",
    "TaskSingularVectors",
    "ThinDelta",
    "rounded",
    "task_singular_vectors",
]
