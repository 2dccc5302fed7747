"""How far a fine-tuned model is from its base, and whether that is plausible at all.

    distance = ||finetuned - pretrained||_F / ||pretrained||_F   over all parameters

Fine-tuning moves weights little: by 0.002 a DINOv2 ViT-S/14 on photographs of clothes, by 0.03 to 0.06 the
demo's encoder, which is trained for long. Two encoders that were trained apart have nothing in common but
the gains of their norms, which are near 1 in both. Without these they are sqrt(2) apart, with them 1.05 to
1.14: a two-layer CLIP, four layers of CLIP ViT-B/32, both of random weights, and that DINOv2 against itself
with the numbers of each parameter shuffled. A store with the blocks of such a task answers at random.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from mass_serve.merging.threads import side_by_side
from mass_serve.model_store.distance_warning import described
from mass_serve.model_store.errors import TaskError
from mass_serve.model_store.format.experts import ReadChange, ReadParameter
from mass_serve.model_store.format.rank_choice import norm_of
from mass_serve.model_store.format.tensor_files import LARGEST_NUMBER
from mass_serve.model_store.progress import Progress

IMPLAUSIBLE_DISTANCE = 0.8


def measured_distances(
    names: Collection[str],
    pretrained: ReadParameter,
    changes: Mapping[str, ReadChange],
    force: bool,
    progress: Progress,
) -> dict[str, float]:
    """Returns the distance of every task, by its name, from one base that is read once.

    `changes` are what the tasks changed of it. One parameter of two models is in memory at a time, on each
    thread. Raises TaskError for the first distance that is implausible, unless `force`, and for a base that
    is nothing but zeros.
    """
    if not changes:
        return {}
    stage = f"measuring {' and '.join(changes) if len(changes) < 3 else f'{len(changes)} tasks'}"

    def squares(name: str) -> tuple[float, list[float]]:
        base = pretrained(name)
        return norm_of(base.float()) ** 2, [norm_of(change(name, base)) ** 2 for change in changes.values()]

    progress(stage, 0, len(names))
    size, moved = 0.0, [0.0] * len(changes)
    for done, (of_base, of_changes) in enumerate(side_by_side(squares, names), start=1):
        size += of_base
        moved = [so_far + more for so_far, more in zip(moved, of_changes, strict=True)]
        progress(stage, done, len(names))
    return {task: _plausible(task, change, size, force) for task, change in zip(changes, moved, strict=True)}


def _plausible(task: str, change: float, size: float, force: bool) -> float:
    """Returns the distance `sqrt(change / size)` of a task. Raises TaskError where there must be none."""
    if not size:
        raise TaskError(f"task {task}: the weights of the pretrained model are all zero: give another")
    distance = min(math.sqrt(change / size), LARGEST_NUMBER)
    if distance > IMPLAUSIBLE_DISTANCE and not force:
        raise TaskError(
            f"{described(task, distance)}: give the model that it was fine-tuned from as the pretrained "
            "one, or --force to take it all the same"
        )
    return distance
