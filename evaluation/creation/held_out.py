"""What heads make of images that they were not fitted to: folds that have the classes in like shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from mass_serve.evaluation.creation.discriminant import SHRINKAGES, ClassMeans, Judged

FOLDS = 4

# The embeddings [n, P] of all images, with weights that were learned from those that the mask [n] has.
Embed = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class HeldOut:
    """The best shrinkage, and what heads of it made of every image when it was held out."""

    shrinkage: float
    judged: Judged

    @property
    def accuracy(self) -> float:
        """The share of images that were right."""
        return self.judged.accuracy


def folds_of(rows_of_classes: Sequence[Tensor]) -> Tensor:
    """The fold of every image [n], of FOLDS or as many as the smallest class has images.

    The images of a class are dealt out in turn, and one class begins where the other left off.
    """
    folds = min(FOLDS, min(map(len, rows_of_classes)))
    return torch.arange(sum(map(len, rows_of_classes))) % folds


def held_out(embed: Embed, targets: Tensor, folds: Tensor) -> HeldOut:
    """Fits heads to all folds but one in turn, and takes the shrinkage by which its classes are likeliest."""
    classes = int(targets.max()) + 1
    of_folds: list[list[Judged]] = []
    for fold in range(int(folds.max()) + 1):
        out = folds == fold
        embeddings = embed(~out)
        told = ClassMeans.of(embeddings[~out], targets[~out], classes)
        heads = map(told.head, SHRINKAGES)
        of_folds.append([Judged.of(head, embeddings[out], targets[out]) for head in heads])
    together = [reduce(Judged.with_others, of_one) for of_one in zip(*of_folds, strict=True)]
    best = min(range(len(together)), key=lambda place: float(together[place].losses.min()))
    return HeldOut(SHRINKAGES[best], together[best])
