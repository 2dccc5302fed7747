"""The merged change of whole models, one parameter at a time.

direction = merged_direction(ISO_C, vectors)
merged = {name: moved(pretrained[name], direction[name], ISO_C.coefficient) for name in vectors.names}
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from mass_serve.merging.methods.method import MergingMethod, TaskVectors


def merged_direction(
    method: MergingMethod, vectors: TaskVectors, progress: Callable[[int, int], None] = lambda _d, _t: None
) -> dict[str, Tensor]:
    """Merges the changes [T, ...] of every parameter: what is added to the pretrained ones, unscaled.

    All changes of one parameter are in memory, and the merged ones. `method` is one whose function takes
    changes, which those of TSV-M (blocks) and of TALL masks (a task's) do not.
    """
    further = () if method.further is None else method.further(vectors)
    merged = {}
    squares = [0.0] * vectors.tasks
    for done, name in enumerate(vectors.names, 1):
        changes = torch.stack([vectors.change(task, name) for task in range(vectors.tasks)])
        squares = [own + _squared_norm(change) for own, change in zip(squares, changes, strict=True)]
        merged[name] = method.merge(changes, *(one.to(changes.device) for one in further))
        progress(done, len(vectors.names))
    if method.keeps_norm and (found := math.sqrt(sum(map(_squared_norm, merged.values())))):
        wanted = sum(map(math.sqrt, squares)) / vectors.tasks
        merged = {name: wanted / found * change for name, change in merged.items()}
    return merged


def _squared_norm(tensor: Tensor) -> float:
    return float(tensor.double().square().sum())
