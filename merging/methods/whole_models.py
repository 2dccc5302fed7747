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
from mass_serve.merging.threads import side_by_side


def merged_direction(
    method: MergingMethod, vectors: TaskVectors, progress: Callable[[int, int], None] = lambda _d, _t: None
) -> dict[str, Tensor]:
    """Merges the changes [T, ...] of every parameter: what is added to the pretrained ones, unscaled.

    Parameters are merged side by side; of those at work all changes are in memory. `method` is one whose
    function takes changes, which those of TSV-M (blocks) and of TALL masks (a task's) do not.
    """
    further = () if method.further is None else method.further(vectors)

    def merge(name: str) -> tuple[Tensor, list[float]]:
        changes = torch.stack([vectors.change(task, name) for task in range(vectors.tasks)])
        merged = method.merge(changes, *(one.to(changes.device) for one in further))
        return merged, [_squared_norm(change) for change in changes]

    merged, squares = {}, [0.0] * vectors.tasks
    pairs = zip(vectors.names, side_by_side(merge, vectors.names), strict=True)
    for done, (name, (change, own)) in enumerate(pairs, 1):
        merged[name] = change
        squares = [sum(pair) for pair in zip(squares, own, strict=True)]
        progress(done, len(vectors.names))
    if method.keeps_norm and (found := math.sqrt(sum(map(_squared_norm, merged.values())))):
        wanted = sum(map(math.sqrt, squares)) / vectors.tasks
        merged = {name: wanted / found * change for name, change in merged.items()}
    return merged


def _squared_norm(tensor: Tensor) -> float:
    return float(tensor.double().square().sum())
