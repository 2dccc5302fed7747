"""A head and its labels, written as the files that `build` looks for in a task's folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from mass_serve.model_store.errors import StoreError, StoreExistsError
from mass_serve.model_store.format.heads import HeadTensors, read_labels
from mass_serve.model_store.format.tensor_files import write_tensors
from mass_serve.model_store.storage.local import LocalFiles


def refuse_taken(head_file: Path, labels_file: Path, labels: Sequence[str]) -> None:
    """Raises StoreExistsError where something else has one of the names: nothing is overwritten."""
    if head_file.exists():
        raise StoreExistsError(f"{head_file} exists: remove it, or choose another name")
    if labels_file.exists() and read_labels(labels_file) != tuple(labels):
        raise StoreExistsError(
            f"{labels_file} exists and holds other labels: choose another name with --labels"
        )


def write_head(head: HeadTensors, labels: Sequence[str], head_file: Path, labels_file: Path) -> None:
    """Writes both files, each whole or not at all, the head last. Raises StoreError.

    Labels that are there already, the same ones, stay as they are.
    """
    refuse_taken(head_file, labels_file, labels)
    try:
        if not labels_file.exists():
            content = json.dumps(list(labels), ensure_ascii=False, indent=1)
            LocalFiles(labels_file.parent).write_bytes(labels_file.name, f"{content}\n".encode())
        with LocalFiles(head_file.parent).writing(head_file.name) as file:
            write_tensors(file, head.specs(), head.tensors.__getitem__)
    except OSError as error:
        raise StoreError(f"{error.filename or head_file} cannot be written: {error.strerror}") from error
