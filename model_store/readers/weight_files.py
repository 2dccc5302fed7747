"""The files that a checkpoint's weights are in: tensors by the names that the files give them."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path

import torch
from torch import Tensor

from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.format.tensor_files import (
    DTYPE_CODES,
    TensorFile,
    TensorFileError,
    TensorLayout,
    TensorSpec,
)
from mass_serve.model_store.readers.json_files import read_json_object
from mass_serve.model_store.readers.pickles import load_state_dict
from mass_serve.model_store.storage.regular_files import FileState, RegularFile

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
PICKLE_FILE = "pytorch_model.bin"
# A PEFT adapter's, which is no whole model.
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# As open_clip names them on the hub.
OPEN_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
# Where training code keeps the weights, beside the optimizer and the like.
_STATE_DICT = "state_dict"
_LFS_POINTER = b"version https://git-lfs"
PICKLE_SUFFIXES = {".pt", ".pth", ".bin"}


class WeightFiles(ABC):
    """The tensors of a checkpoint, by the names in its files."""

    paths: tuple[Path, ...]
    specs: dict[str, TensorSpec]

    @abstractmethod
    def read(self, key: str) -> Tensor:
        """Reads one tensor, in its own dtype."""


class SafetensorsWeights(WeightFiles):
    """One safetensors file or the shards of an index.

    None stays open, for a suite may have more of them than a process may have descriptors; what is read is
    held to be of the file that was looked at, whose header is kept.
    """

    def __init__(self, paths: tuple[Path, ...]) -> None:
        self.paths = paths
        self.specs = {}
        self._file_of: dict[str, tuple[Path, FileState, TensorLayout]] = {}
        for path in paths:
            with _opened(path) as file:
                layout = _tensors(path, file).layout
                for key in layout.specs:
                    if key in self._file_of:
                        other = self._file_of[key][0].name
                        raise CheckpointError(f"{path} holds {key}, which {other} holds too")
                    self._file_of[key] = path, file.state, layout
                self.specs |= layout.specs

    def read(self, key: str) -> Tensor:
        path, state, layout = self._file_of[key]
        with _opened(path) as file:
            _refuse_unless(file.state == state, path)
            try:
                tensor = TensorFile(file, layout).read(key)
            except TensorFileError as error:
                raise CheckpointError(f"{path} cannot be used: {error}") from error
            _refuse_unless(file.is_as_it_was, path)
            return tensor


class PickledWeights(WeightFiles):
    """A `torch.save`d state dict, unpickled by the restricted loader that makes tensors only."""

    def __init__(self, path: Path) -> None:
        self.paths = (path,)
        state = load_state_dict(path)
        if isinstance(state, dict) and isinstance(inner := state.get(_STATE_DICT), dict):
            state = inner
        if not isinstance(state, dict) or not all(_is_plain(key, value) for key, value in state.items()):
            raise CheckpointError(f"{path} must hold a state dict: dense tensors by name")
        self._state: dict[str, Tensor] = state
        self.specs = {
            key: TensorSpec(value.dtype if value.dtype in DTYPE_CODES else None, tuple(value.shape))
            for key, value in state.items()
        }

    def read(self, key: str) -> Tensor:
        return self._state[key]


def _is_plain(key: object, value: object) -> bool:
    """Tells whether an entry of a pickle could as well be one of a safetensors file."""
    if not isinstance(key, str) or not isinstance(value, Tensor):
        return False
    if value.layout != torch.strided or value.device.type != "cpu":
        return False
    # A few bytes that are repeated in place of numbers would become as large as they say when they are read.
    return value.untyped_storage().nbytes() >= value.nbytes


def open_weights(path: Path, allow_pickle: bool) -> WeightFiles:
    """Opens the weights in a directory or a file. Raises CheckpointError; pickles must be allowed."""
    if not path.exists():
        raise CheckpointError(f"{path} does not exist")
    if path.name == ADAPTER_WEIGHTS:
        raise CheckpointError(f"{path} is a PEFT adapter's, which is no model by itself: give its folder")
    if not path.is_dir():
        if path.suffix not in PICKLE_SUFFIXES:
            return SafetensorsWeights((path,))
        if not allow_pickle:
            raise CheckpointError(f"{path} is a pickle: convert it to safetensors, or pass --allow-pickle")
        return PickledWeights(path)
    # What is there and no file is refused by whoever opens it, in words of its own.
    if (path / WEIGHTS_FILE).exists():
        return SafetensorsWeights((path / WEIGHTS_FILE,))
    if (path / INDEX_FILE).exists():
        return SafetensorsWeights(_shards(path / INDEX_FILE))
    if (path / PICKLE_FILE).exists():
        return open_weights(path / PICKLE_FILE, allow_pickle)
    for name in OPEN_CLIP_FILES:
        if (path / name).exists():
            return open_weights(path / name, allow_pickle)
    if (path / ADAPTER_CONFIG).exists():
        raise CheckpointError(f"{path} is a PEFT adapter, but a whole model is needed: give its base")
    raise CheckpointError(f"{path} has neither {WEIGHTS_FILE} nor {INDEX_FILE}: download the model again")


def _shards(index: Path) -> tuple[Path, ...]:
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise CheckpointError(f"{index} has no weight_map")
    names = sorted({str(name) for name in weight_map.values()})
    if not all(name.isprintable() and Path(name).name == name != "" for name in names):
        raise CheckpointError(f"{index} must name its shards as files of its own folder")
    shards = tuple(index.parent / name for name in names)
    if missing := [path for path in shards if not os.path.exists(path)]:
        raise CheckpointError(f"{index} names {missing[0].name}, which is not there: download it, too")
    return shards


def _refuse_unless(unchanged: bool, path: Path) -> None:
    if not unchanged:
        raise CheckpointError(f"{path} was changed while it was used: start again when it is complete")


def _opened(path: Path) -> RegularFile:
    try:
        return RegularFile.open(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error


def _tensors(path: Path, file: RegularFile) -> TensorFile:
    try:
        return TensorFile(file)
    except TensorFileError as error:
        if file.size >= len(_LFS_POINTER) and file.read(0, len(_LFS_POINTER)) == _LFS_POINTER:
            raise CheckpointError(
                f"{path} is the pointer of Git LFS to a file, not that file: run `git lfs pull` in its folder"
            ) from error
        raise CheckpointError(f"{path} cannot be used: {error}: download it again") from error
