"""A plain model as a folder that transformers loads, and that `build` reads back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mass_serve.model_store.errors import StoreError
from mass_serve.model_store.format.heads import HEAD_FILE, LABELS_FILE, HeadTensors
from mass_serve.model_store.format.tensor_files import write_tensors
from mass_serve.model_store.format.thresholds import THRESHOLDS_FILE
from mass_serve.model_store.readers.checkpoint import Checkpoint
from mass_serve.model_store.readers.weight_files import WEIGHTS_FILE
from mass_serve.model_store.storage.local import LocalFiles
from mass_serve.model_store.writers.input_files import input_files, pooling_files
from mass_serve.model_store.writers.new_folder import new_folder
from mass_serve.model_store.writers.plain_model import PlainModel
from mass_serve.model_store.writers.read_me import READ_ME, read_me
from mass_serve.model_store.writers.written_form import WrittenForm, written_form
from mass_serve.model_store.writing import writing_errors_explained


@dataclass(frozen=True)
class WrittenModel:
    """What was written."""

    folder: Path
    class_name: str  # of transformers
    head_file: bool  # the head is a file beside the model, and no part of it


def write_model(model: PlainModel, folder: Path) -> WrittenModel:
    """Writes a model, in float32, to a folder that is new or empty.

    The folder appears whole or not at all, after it was read back. Raises CheckpointError for a model that
    transformers has no class for, StoreExistsError where `folder` holds something, and StoreError where it
    cannot be written.
    """
    written = written_form(model, folder)
    with writing_errors_explained(str(folder)), new_folder(folder) as partial:
        files = LocalFiles(partial)
        for path, content in _small_files(written).items():
            files.write_bytes(path, content)
        tensors = written.tensors()
        with files.writing(WEIGHTS_FILE) as file:
            write_tensors(file, written.specs(), tensors.__getitem__)
        if (head := _head_of_file(written)) is not None:
            with files.writing(HEAD_FILE) as file:
                write_tensors(file, head.specs(), head.tensors.__getitem__)
        _check_readable(model, partial)
    return WrittenModel(folder, written.class_name, head is not None)


def _small_files(written: WrittenForm) -> dict[str, bytes]:
    """The content of all files but those of tensors."""
    model = written.model
    contents: dict[str, Any] = {"config.json": written.config(), **input_files(model)}
    if not written.classifies:
        contents |= pooling_files(model.architecture)
    if model.head is not None and model.head.thresholds is not None:
        contents[THRESHOLDS_FILE] = dict(zip(model.labels, model.head.thresholds, strict=True))
    if _head_of_file(written) is not None:
        contents |= {LABELS_FILE: list(model.labels), READ_ME: read_me(written).encode()}
    return {path: _as_bytes(content) for path, content in contents.items()}


def _as_bytes(content: Any) -> bytes:
    if isinstance(content, bytes):
        return content
    return (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode()


def _check_readable(model: PlainModel, folder: Path) -> None:
    """Reads the model back. Raises StoreError where it is another one than was written."""
    checkpoint = Checkpoint.open(folder).pooled(model.architecture.pooling)
    for name, parameter in model.parameters.items():
        if not torch.equal(checkpoint.parameter(name), parameter.float()):
            raise StoreError(f"{name} is not read back from {folder} as it was written: nothing was exported")


def _head_of_file(written: WrittenForm) -> HeadTensors | None:
    return None if written.classifies else written.model.head
