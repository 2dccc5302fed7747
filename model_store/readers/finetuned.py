"""A fine-tuned model: a whole one, or an adapter over its own base."""

from __future__ import annotations

from pathlib import Path

from mass_serve.model_store.readers.adapter_base import base_folder
from mass_serve.model_store.readers.adapters import is_adapter
from mass_serve.model_store.readers.checkpoint import Checkpoint
from mass_serve.model_store.readers.stored_base import StoredBase


def finetuned_from(base: Checkpoint | StoredBase, path: Path, allow_pickle: bool = False) -> Checkpoint:
    """Opens a model that was fine-tuned from a base, or an adapter over its own one.

    That is the folder that the adapter names, or, where there is none here, `base`: an adapter of another
    model is as far from `base` as that model is, so that its distance is measured as any other. Raises
    CheckpointError.
    """
    if not is_adapter(path):
        return Checkpoint.open(path, allow_pickle, base.architecture)
    folder = base_folder(path)
    is_same = isinstance(base, Checkpoint) and folder is not None and folder.samefile(base.folder)
    if folder is None or is_same:
        return base.adapted(path)
    return Checkpoint.open(folder, allow_pickle).adapted(path)
