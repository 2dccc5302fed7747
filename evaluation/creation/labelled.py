"""The labelled images that a task is created from: IMAGES/<class>/*.png."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from mass_serve.backbone import Architecture, Batch
from mass_serve.engine.preprocessing import ImagePreprocessor
from mass_serve.evaluation.data import BATCH_INPUTS
from mass_serve.evaluation.errors import EvaluationDataError
from mass_serve.evaluation.inputs import ImageFiles, Item, items_by_name
from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.format.heads import labels_in_order

FEWEST = 2  # images of a class: one to learn from, and one to tell what was learned
# Images whose pixels stay in memory; of more, those that are needed are read again.
KEPT_IMAGES = 2048


@dataclass(frozen=True)
class LabelledImages:
    """Images in folders named as their classes, in alphabetical order of these."""

    root: Path
    files: ImageFiles
    labels: tuple[str, ...]
    items: Sequence[Item]
    targets: Tensor  # [n] int64: the class of each

    @classmethod
    def below(cls, root: Path, preprocessing: ImagePreprocessor) -> LabelledImages:
        """Lists the images. Raises EvaluationDataError where they are none to learn a task from."""
        files = ImageFiles(preprocessing)
        if not root.is_dir():
            raise EvaluationDataError(f"{root} is no folder; expected {root}/<class>/{files.form}")
        by_class = items_by_name(root, files)
        if stray := [name for name in by_class if not (root / name).is_dir()]:
            raise EvaluationDataError(
                f"{root} has images that are in no folder of a class, such as {stray[0]}: put them into one,"
                f" {root}/<class>/{files.form}"
            )
        try:
            labels = labels_in_order(root, list(by_class))
        except CheckpointError as error:
            raise EvaluationDataError(f"{error}: rename the folder") from error
        if len(labels) < 2:
            raise EvaluationDataError(
                f"{root} has images of one class, {labels[0]}: a task needs at least 2 to tell apart,"
                " a folder for each"
            )
        if few := [name for name, items in by_class.items() if len(items) < FEWEST]:
            more = f" and {len(few) - 1:,} more classes" if len(few) > 1 else ""
            raise EvaluationDataError(
                f"{root / few[0]}{more} has one image: a class needs at least {FEWEST}, one of which tells"
                " what was learned from the others; 16 are a good number"
            )
        targets = [target for target, items in enumerate(by_class.values()) for _ in items]
        return cls(
            root,
            files,
            labels,
            [one for items in by_class.values() for one in items],
            torch.tensor(targets),
        )

    @property
    def rows_of_classes(self) -> list[Tensor]:
        """The numbers [n_c] int64 of the images of each class."""
        counts = self.targets.bincount(minlength=len(self.labels)).tolist()
        return list(torch.split(torch.arange(len(self.targets)), counts))


class Pixels:
    """The pixels of images, as a dense encoder takes them, read when they are first asked for."""

    def __init__(self, images: LabelledImages, architecture: Architecture, like: Tensor) -> None:
        self._images, self._architecture, self._like = images, architecture, like
        self._read = lru_cache(KEPT_IMAGES)(self._read_now)

    def batch(self, rows: Tensor) -> Batch:
        """Patches of the images that `rows` [n] int64 numbers.

        Raises EvaluationDataError for one that cannot be read.
        """
        pixels = [self._read(row) for row in rows.tolist()]
        return self._images.files.batch(self._architecture, pixels, self._like)

    def batches(self) -> Sequence[Tensor]:
        """The numbers of all images, as many at a time as are read together."""
        return torch.split(torch.arange(len(self._images.items)), BATCH_INPUTS)

    def _read_now(self, row: int) -> Tensor:
        return self._images.files.read(self._images.root, self._images.items[row])
