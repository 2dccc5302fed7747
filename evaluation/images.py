"""Labelled images in folders: DATA/<task>/<class>/*.png|jpg|webp|... (`class_folders` on their names)."""

from __future__ import annotations

import os
import sqlite3
import weakref
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mass_serve.engine.preprocessing import ImagePreprocessor
from mass_serve.evaluation.class_folders import class_of_folders, expected_folders
from mass_serve.evaluation.index import Selection, index_files, next_images
from mass_serve.inputs.errors import InputError
from mass_serve.inputs.images import FORMATS, ImageLimits, decode_image

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
# Files on the user's own disk may be larger than what a server accepts from strangers.
LIMITS = ImageLimits(200_000_000, FORMATS)
BATCH_IMAGES = 64


class EvaluationDataError(Exception):
    """The folder does not hold labelled images of these tasks; the text says what to do."""


@dataclass(frozen=True)
class ImageBatch:
    """Images of one half of one task's images, and their classes."""

    task: str
    half: int
    ids: list[int]  # in the index
    pixels: list[Tensor]  # each [3, crop, crop] uint8
    targets: Tensor  # [n] int64: the class of each, as a row of the task's head


class EvaluationData:
    """The images of a folder, by task; the list of them is on disk, and a batch is in memory at a time.

    Every task's images fall into two halves, alternately within each class, so that what is tuned on one
    half can be measured on the other.
    """

    def __init__(self, root: Path, labels: Mapping[str, Sequence[str]], journal: Path | None = None) -> None:
        """`labels` maps each task of the store to its classes; `journal` the database to index in.

        Without `journal` it is a temporary one. Raises EvaluationDataError for a folder that is missing or
        empty, or named as no task or class, and for a journal that was begun with other images.
        """
        if not root.is_dir():
            raise EvaluationDataError(f"{root} is no folder; expected {root}/<task>/<class>/*.png")
        self.root = root
        try:
            # SQLite keeps a database without a name in a temporary file of its own.
            self.database = sqlite3.connect("" if journal is None else journal)
            weakref.finalize(self, self.database.close)
            self.database.execute("PRAGMA journal_mode = WAL")  # a batch's answers need not wait for the disk
            changed = index_files(self.database, _labelled_files(root, labels))
        except sqlite3.DatabaseError as error:
            raise EvaluationDataError(f"{journal} cannot be used as a journal: {error}") from error
        if changed is not None:
            raise EvaluationDataError(
                f"{journal} was begun with other images ({changed} differs): delete it, or name another"
            )
        rows = self.database.execute("SELECT task, COUNT(*) FROM images GROUP BY task ORDER BY task")
        self._counts: dict[str, int] = dict(rows)
        if not self._counts:
            raise EvaluationDataError(f"{root} holds no images; expected {root}/<task>/<class>/*.png")

    @property
    def tasks(self) -> list[str]:
        """The tasks that have images, in alphabetical order."""
        return list(self._counts)

    def count(self, task: str) -> int:
        """The number of images that a task has."""
        return self._counts[task]

    def batches(self, selection: Selection, preprocessing: ImagePreprocessor) -> Iterator[ImageBatch]:
        """Yields the selected images in batches. Raises EvaluationDataError for a file that is no image."""
        last, left = 0, selection.limit
        with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decode") as pool:
            while rows := next_images(self.database, selection, last, min(BATCH_IMAGES, left)):
                ids, targets, paths = zip(*rows, strict=True)
                pixels = list(pool.map(lambda path: read_image(self.root / path, preprocessing), paths))
                yield ImageBatch(selection.task, selection.half, list(ids), pixels, torch.tensor(targets))
                last, left = ids[-1], left - len(ids)


def images_below(root: Path) -> list[Path]:
    """The image files in a folder and in those within, sorted."""
    return sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES)


def image_batches(paths: Sequence[Path], preprocessing: ImagePreprocessor) -> Iterator[list[Tensor]]:
    """Yields the pixels of the files, `BATCH_IMAGES` at a time, in their order.

    Raises EvaluationDataError for a file that is no image.
    """
    with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decode") as pool:
        for start in range(0, len(paths), BATCH_IMAGES):
            part = paths[start : start + BATCH_IMAGES]
            yield list(pool.map(lambda path: read_image(path, preprocessing), part))


def _labelled_files(
    root: Path, labels: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, int, str, int, int]]:
    """Yields (task, class, path below root, bytes, modification time) of every image, in no order."""
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        if folder.name not in labels:
            raise EvaluationDataError(
                f"{folder} is named as no task of the store; it has {', '.join(labels)}"
            )
        class_folders = sorted(path for path in folder.iterdir() if path.is_dir())
        names = [path.name for path in class_folders]
        targets = class_of_folders(names, labels[folder.name])
        for class_folder in class_folders:
            target = targets.get(class_folder.name)
            if target is None:
                raise EvaluationDataError(
                    f"{class_folder} is named as no class of {folder.name}:"
                    f" {expected_folders(names, labels[folder.name])}"
                )
            with os.scandir(class_folder) as entries:
                for entry in entries:
                    if os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                        path, stat = f"{folder.name}/{class_folder.name}/{entry.name}", entry.stat()
                        yield folder.name, target, path, stat.st_size, stat.st_mtime_ns


def read_image(path: Path, preprocessing: ImagePreprocessor) -> Tensor:
    """The pixels [3, crop, crop] uint8 of a file. Raises EvaluationDataError for one that is no image."""
    try:
        return preprocessing.preprocess(decode_image(path.read_bytes(), LIMITS))
    except (OSError, InputError) as error:
        raise EvaluationDataError(f"{path}: {error}") from error
