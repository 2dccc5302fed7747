"""Labelled images in folders: DATA/<task>/<class>/*.png|jpg."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from server.decode import decode_image
from server.errors import ServiceError
from server.preprocessing import Preprocessing

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
# Files on the user's own disk may be larger than what a server accepts from strangers.
MAX_PIXELS = 200_000_000


class EvaluationDataError(Exception):
    """The folder does not hold labelled images of these tasks; the text says what to do."""


@dataclass(frozen=True)
class ImageBatch:
    """Some images of one task."""

    pixels: list[Tensor]  # each [3, crop, crop] uint8
    targets: Tensor  # [n] int64: the class of each, as a row of the task's head


class EvaluationData:
    """The images of a folder, by task. Only paths are kept; images are read a batch at a time."""

    def __init__(self, root: Path, labels: Mapping[str, Sequence[str]]) -> None:
        """`labels` maps each task of the store to its classes.

        Raises EvaluationDataError for a folder that is missing or empty, or named as no task or class.
        """
        if not root.is_dir():
            raise EvaluationDataError(f"{root} is no folder; expected {root}/<task>/<class>/*.png")
        self._files: dict[str, list[tuple[Path, int]]] = {}
        for folder in sorted(path for path in root.iterdir() if path.is_dir()):
            if folder.name not in labels:
                raise EvaluationDataError(
                    f"{folder} is named as no task of the store; it has {', '.join(labels)}"
                )
            self._files[folder.name] = _labelled_files(folder, list(labels[folder.name]))
        if not any(self._files.values()):
            raise EvaluationDataError(f"{root} holds no images; expected {root}/<task>/<class>/*.png")

    @property
    def tasks(self) -> list[str]:
        """The tasks that have images, in alphabetical order."""
        return [task for task, files in self._files.items() if files]

    def count(self, task: str) -> int:
        """How many images a task has."""
        return len(self._files[task])

    def batches(self, task: str, preprocessing: Preprocessing, size: int) -> Iterator[ImageBatch]:
        """The images of a task, `size` at a time. Raises EvaluationDataError for a file that is no image."""
        files = self._files[task]
        for start in range(0, len(files), size):
            part = files[start : start + size]
            pixels = [_read(path, preprocessing) for path, _ in part]
            yield ImageBatch(pixels, torch.tensor([target for _, target in part]))


def _labelled_files(folder: Path, labels: list[str]) -> list[tuple[Path, int]]:
    files = []
    for class_folder in sorted(path for path in folder.iterdir() if path.is_dir()):
        if class_folder.name not in labels:
            raise EvaluationDataError(
                f"{class_folder} is named as no class of {folder.name}; it has {', '.join(labels)}"
            )
        target = labels.index(class_folder.name)
        images = sorted(path for path in class_folder.iterdir() if path.suffix.lower() in SUFFIXES)
        files += [(path, target) for path in images]
    return files


def _read(path: Path, preprocessing: Preprocessing) -> Tensor:
    try:
        return preprocessing.preprocess(decode_image(path.read_bytes(), MAX_PIXELS))
    except (OSError, ServiceError) as error:
        raise EvaluationDataError(f"{path}: {error}") from error
