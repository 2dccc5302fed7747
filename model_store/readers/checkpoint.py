"""One model on disk, of whichever family, read one canonical parameter at a time, without transformers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.format.tensor_files import LARGEST_NUMBER, is_moderate
from mass_serve.model_store.readers.clip import ClipVision
from mass_serve.model_store.readers.family import Family, Source
from mass_serve.model_store.readers.json_files import read_json_object
from mass_serve.model_store.readers.weight_files import WeightFiles, open_weights

CONFIG_FILE = "config.json"
# Another family is another file beside `clip`, and an entry here.
FAMILIES: tuple[Family, ...] = (ClipVision(),)


class Checkpoint:
    """One model on disk: its architecture at once, its weights one canonical parameter at a time."""

    def __init__(self, folder: Path, weights: WeightFiles, family: Family, config: dict[str, Any]) -> None:
        """Checks the weights of `family` in `folder` against its `config`. Raises CheckpointError."""
        self.folder = folder
        self._weights = weights
        self._keys = _keys_by_name(folder, family, weights.specs)
        self.architecture = family.architecture(folder / CONFIG_FILE, config, self._keys)
        self._sources = family.sources(self.architecture)
        self._shapes = self.architecture.parameter_shapes()
        self._check_keys()
        self._check_tensors()

    @classmethod
    def open(cls, path: Path, allow_pickle: bool = False) -> Checkpoint:
        """Opens the model in a directory, or in a weights file whose directory has its config.json.

        Only headers are read (pickles whole). Raises CheckpointError naming what is wrong: a missing file,
        another architecture, missing or unexpected keys, wrong shapes.
        """
        folder = path if path.is_dir() else path.parent
        weights = open_weights(path, allow_pickle)
        config = read_json_object(folder / CONFIG_FILE)
        return cls(folder, weights, _family_of(folder / CONFIG_FILE, config), config)

    @property
    def input_files(self) -> tuple[Path, ...]:
        """The files that decide what the parameters are."""
        return (self.folder / CONFIG_FILE, *self._weights.paths)

    def dtype(self, name: str) -> torch.dtype:
        """Returns the dtype in which `parameter` gives a parameter."""
        dtypes = [self._weights.specs[key].dtype for key in self._keys_of(name)]
        if len(set(dtypes)) != 1 or dtypes[0] is None:
            raise CheckpointError(f"{self.folder}: the parts of {name} have different dtypes")
        return dtypes[0]

    def parameter(self, name: str) -> Tensor:
        """Reads a parameter by its canonical name, in the file's dtype and the architecture's shape.

        Raises CheckpointError naming a weight that holds NaN, Inf or what float32 could not compute with.
        """
        parts = [self._finite(key) for key in self._keys_of(name)]
        return torch.cat(parts).reshape(self._shapes[name])

    def _finite(self, key: str) -> Tensor:
        tensor = self._weights.read(key)
        if not is_moderate(tensor):
            raise CheckpointError(
                f"{self.folder}: {key} holds NaN, Inf or a number beyond {LARGEST_NUMBER:g}"
            )
        return tensor

    def _keys_of(self, name: str) -> list[str]:
        """The keys in the files of the tensors that make up a canonical parameter."""
        return [self._keys[key] for key in self._sources[name].keys]

    def _check_keys(self) -> None:
        expected = {key for source in self._sources.values() for key in source.keys}
        if missing := sorted(expected - self._keys.keys()):
            raise CheckpointError(f"{self.folder}: missing {_some(missing)}")
        if extra := sorted(self._keys[key] for key in self._keys.keys() - expected):
            raise CheckpointError(f"{self.folder}: unexpected {_some(extra)}")

    def _check_tensors(self) -> None:
        for name, source in self._sources.items():
            for key in self._keys_of(name):
                self._check_tensor(key, source)
            self.dtype(name)

    def _check_tensor(self, key: str, source: Source) -> None:
        found = self._weights.specs[key]
        if found.shape != source.shape:
            raise CheckpointError(
                f"{self.folder}: {key} has shape {list(found.shape)}, expected {list(source.shape)}"
            )
        if found.dtype is None or not found.dtype.is_floating_point:
            raise CheckpointError(f"{self.folder}: {key} must be float64, float32, float16 or bfloat16")


def _family_of(path: Path, config: dict[str, Any]) -> Family:
    model_type = config.get("model_type")
    for family in FAMILIES:
        if model_type in family.model_types:
            return family
    known = " and ".join(family.title for family in FAMILIES)
    raise CheckpointError(f"{path}: model_type is {model_type!r}, but only {known} can be stored")


def _keys_by_name(folder: Path, family: Family, files_keys: Iterable[str]) -> dict[str, str]:
    """The keys in the files by what the family calls them.

    Raises CheckpointError for a parameter that is there twice, under two names.
    """
    keys: dict[str, str] = {}
    for key in files_keys:
        name = family.key(key)
        if name is None:
            continue
        if name in keys:
            raise CheckpointError(f"{folder}: {keys[name]} and {key} are the same parameter: remove one")
        keys[name] = key
    return keys


def _some(keys: list[str]) -> str:
    """The first keys of a list that may be long, and how many there are in all."""
    shown = ", ".join(keys[:5])
    return shown if len(keys) <= 5 else f"{shown} and {len(keys) - 5} more"
