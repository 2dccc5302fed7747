"""Images in files: DATA/<task>/<class>/*.png|jpg|webp|... (`class_folders` on their names)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from mass_serve.backbone import Architecture
from mass_serve.engine.preprocessing import ImagePreprocessor
from mass_serve.engine.queries import Query, batch_patches
from mass_serve.evaluation.errors import EvaluationDataError
from mass_serve.evaluation.inputs.class_folders import labelled_folders
from mass_serve.evaluation.inputs.folders import files_below
from mass_serve.evaluation.inputs.image_tables import item_of_file, listed_images
from mass_serve.evaluation.inputs.item import Item, Labelled
from mass_serve.evaluation.inputs.row_labels import TaskLabels
from mass_serve.inputs.errors import InputError
from mass_serve.inputs.images import FORMATS, ImageLimits

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
# Files on the user's own disk may be larger than what a server accepts from strangers.
LIMITS = ImageLimits(200_000_000, FORMATS)


@dataclass(frozen=True)
class ImageFiles:
    """Image files, whose pixels [3, crop, crop] are read when they are needed."""

    preprocessing: ImagePreprocessor
    noun: str = "images"
    labelled_form: str = "<task>/<class>/*.png (or <task>/metadata.jsonl, .csv)"
    form: str = "*.png"

    def labelled(self, root: Path, labels: Mapping[str, TaskLabels]) -> Iterator[Labelled]:
        """Yields every image with the task and labels that its folders name, or a table beside it."""
        listed = listed_images(root, labels)
        yield from (one for of_task in listed.values() for one in of_task)
        for folder in labelled_folders(root, labels, without=listed):
            with os.scandir(folder.path) as entries:
                for entry in entries:
                    if os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                        place = f"{folder.task}/{folder.path.name}/{entry.name}"
                        yield Labelled(folder.task, (folder.target,), item_of_file(place, entry.stat()))

    def below(self, root: Path, within: str = "") -> list[Item]:
        """The image files in a folder and in those within, sorted."""
        return [Item(str(path.relative_to(root))) for path in files_below(root / within, SUFFIXES)]

    def read(self, root: Path, item: Item) -> Tensor:
        """The pixels [3, crop, crop] uint8 of a file."""
        path = root / item.place
        try:
            return self.preprocessing.preprocess_file(path.read_bytes(), LIMITS)
        except (OSError, InputError) as error:
            raise EvaluationDataError(f"{path}: {error}") from error

    def query(self, tensor: Tensor, candidates: tuple[str, ...] | None = None) -> Query:
        """The question about one image's pixels."""
        return Query(tensor, candidates)

    def batch(self, architecture: Architecture, tensors: Sequence[Tensor], like: Tensor) -> Tensor:
        """Patches [n, L - 1, 3 p p] of n images."""
        queries = [Query(pixels) for pixels in tensors]
        return batch_patches(queries, self.preprocessing, architecture.patches.patch_size, like)
