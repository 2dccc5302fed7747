"""Hugging Face CLIP checkpoints, read one canonical parameter at a time, without transformers.

`CLIPVisionModel`, `CLIPVisionModelWithProjection` and `CLIPModel` (whose text tower is ignored) name the
same tensors with and without a `vision_model.` prefix; here they all get the names of `backbone_spec`.
"""

from __future__ import annotations

import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from mass_serve.model_store.backbone_spec import PATCH_EMBEDDING, PROJECTION, BackboneSpec, parameter_shapes
from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.format.tensor_files import (
    DTYPE_CODES,
    TensorFileError,
    TensorSpec,
    read_specs,
    read_tensor,
)
from mass_serve.model_store.readers.clip_config import CONFIG_FILE, read_backbone_spec, read_json_object

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
PICKLE_FILE = "pytorch_model.bin"
# Beyond it even the difference of two weights may overflow float32.
LARGEST_WEIGHT = 1e30
_PICKLE_SUFFIXES = {".pt", ".pth", ".bin"}
_PROJECTION_KEY = "visual_projection.weight"


class WeightFiles(ABC):
    """The tensors of a checkpoint by the names in its files."""

    paths: tuple[Path, ...]
    specs: dict[str, TensorSpec]

    @abstractmethod
    def read(self, key: str) -> Tensor:
        """One tensor in its own dtype."""


class SafetensorsWeights(WeightFiles):
    """One safetensors file or the shards of an index."""

    def __init__(self, paths: tuple[Path, ...]) -> None:
        self.paths = paths
        self.specs = {}
        self._file_of: dict[str, Path] = {}
        for path in paths:
            specs = _specs_of(path)
            self.specs |= specs
            self._file_of |= dict.fromkeys(specs, path)

    def read(self, key: str) -> Tensor:
        return read_tensor(self._file_of[key], key)


class PickledWeights(WeightFiles):
    """A `torch.save`d state dict, unpickled by the restricted loader that makes tensors only."""

    def __init__(self, path: Path) -> None:
        self.paths = (path,)
        try:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
        except Exception as error:  # torch.load documents no exceptions of its own
            raise CheckpointError(f"{path} is not a state dict that can be loaded safely: {error}") from error
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
    """Whether an entry of a pickle could as well be one of a safetensors file."""
    if not isinstance(key, str) or not isinstance(value, Tensor):
        return False
    return value.layout == torch.strided and value.device.type == "cpu"


class Checkpoint:
    """One model on disk: its sizes at once, its weights one canonical parameter at a time."""

    def __init__(self, folder: Path, spec: BackboneSpec, weights: WeightFiles, keys: dict[str, str]) -> None:
        self.folder = folder
        self.spec = spec
        self._weights = weights
        self._keys = keys  # a file's key by the name it has without prefix

    @classmethod
    def open(cls, path: Path, allow_pickle: bool = False) -> Checkpoint:
        """The model in a directory, or in a weights file whose directory has its config.json.

        Only headers are read (of a pickle, everything). Raises CheckpointError naming what is wrong: a
        missing file, another architecture, missing or unexpected keys, wrong shapes.
        """
        folder = path if path.is_dir() else path.parent
        weights = _open_weights(path, allow_pickle)
        keys = _vision_keys(folder, weights.specs)
        spec = read_backbone_spec(folder, has_projection=_PROJECTION_KEY in keys)
        checkpoint = cls(folder, spec, weights, keys)
        checkpoint._check_keys()
        checkpoint._check_tensors()
        return checkpoint

    @property
    def input_files(self) -> tuple[Path, ...]:
        """Every file that decides what the parameters are."""
        return (self.folder / CONFIG_FILE, *self._weights.paths)

    def dtype(self, name: str) -> torch.dtype:
        """The dtype in which `parameter` gives a parameter."""
        dtypes = [self._spec_of(source).dtype for source in _sources(name)]
        if len(set(dtypes)) != 1 or dtypes[0] is None:
            raise CheckpointError(f"{self.folder}: the parts of {name} have different dtypes")
        return dtypes[0]

    def parameter(self, name: str) -> Tensor:
        """A parameter by its canonical name, in the file's dtype; q, k and v as one matrix [3D, D].

        Raises CheckpointError naming a weight that holds NaN, Inf or what float32 could not compute with.
        """
        parts = []
        for source in _sources(name):
            key = self._keys[source]
            part = self._weights.read(key)
            if not torch.isfinite(part).all() or (part.abs() > LARGEST_WEIGHT).any():
                raise CheckpointError(
                    f"{self.folder}: {key} holds NaN, Inf or a number beyond {LARGEST_WEIGHT:g}"
                )
            parts.append(part)
        return torch.cat(parts).reshape(parameter_shapes(self.spec)[name])

    def _spec_of(self, source: str) -> TensorSpec:
        return self._weights.specs[self._keys[source]]

    def _check_keys(self) -> None:
        expected = {source for name in parameter_shapes(self.spec) for source in _sources(name)}
        if missing := sorted(expected - self._keys.keys()):
            raise CheckpointError(f"{self.folder}: missing {_some(missing)}")
        if extra := sorted(self._keys[source] for source in self._keys.keys() - expected):
            raise CheckpointError(f"{self.folder}: unexpected {_some(extra)}")

    def _check_tensors(self) -> None:
        for name in parameter_shapes(self.spec):
            for source in _sources(name):
                found = self._spec_of(source)
                expected = _source_shape(self.spec, name)
                if found.shape != expected:
                    raise CheckpointError(
                        f"{self.folder}: {self._keys[source]} has shape {list(found.shape)}, "
                        f"expected {list(expected)}"
                    )
                if found.dtype is None or not found.dtype.is_floating_point:
                    raise CheckpointError(
                        f"{self.folder}: {self._keys[source]} must be float64, float32, float16 or bfloat16"
                    )
            self.dtype(name)


def _open_weights(path: Path, allow_pickle: bool) -> WeightFiles:
    if path.is_file():
        if path.suffix not in _PICKLE_SUFFIXES:
            return SafetensorsWeights((path,))
        if not allow_pickle:
            raise CheckpointError(f"{path} is a pickle: convert it to safetensors, or pass --allow-pickle")
        return PickledWeights(path)
    if not path.is_dir():
        raise CheckpointError(f"{path} does not exist")
    if (path / WEIGHTS_FILE).is_file():
        return SafetensorsWeights((path / WEIGHTS_FILE,))
    if (path / INDEX_FILE).is_file():
        return SafetensorsWeights(_shards(path / INDEX_FILE))
    if (path / PICKLE_FILE).is_file():
        return _open_weights(path / PICKLE_FILE, allow_pickle)
    raise CheckpointError(f"{path} has neither {WEIGHTS_FILE} nor {INDEX_FILE}")


def _shards(index: Path) -> tuple[Path, ...]:
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise CheckpointError(f"{index} has no weight_map")
    names = sorted({str(name) for name in weight_map.values()})
    if any(Path(name).name != name or not name for name in names):
        raise CheckpointError(f"{index} must name its shards as files of its own folder")
    return tuple(index.parent / name for name in names)


def _specs_of(path: Path) -> dict[str, TensorSpec]:
    try:
        return read_specs(path)
    except TensorFileError as error:
        raise CheckpointError(f"{path} cannot be used: {error}") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error


def _vision_keys(folder: Path, specs: Mapping[str, TensorSpec]) -> dict[str, str]:
    """The vision tower's keys by what they are without prefix, in one spelling.

    Raises CheckpointError for a parameter that is there twice, under two names.
    """
    keys: dict[str, str] = {}
    for key in specs:
        if key.startswith(("text_model.", "text_projection.")) or key == "logit_scale":
            continue
        if key.endswith(".position_ids"):
            continue
        name = key.removeprefix("vision_model.").replace("pre_layrnorm.", "pre_layernorm.")
        if name in keys:
            raise CheckpointError(f"{folder}: {keys[name]} and {key} are the same parameter: remove one")
        keys[name] = key
    return keys


def _sources(name: str) -> tuple[str, ...]:
    """The tensors, named as in a CLIPVisionModel, that make up a canonical parameter."""
    renamed = {
        PATCH_EMBEDDING: "embeddings.patch_embedding.weight",
        "class_embedding": "embeddings.class_embedding",
        "position_embedding.weight": "embeddings.position_embedding.weight",
        PROJECTION: _PROJECTION_KEY,
    }
    if name in renamed:
        return (renamed[name],)
    source = name.replace("blocks.", "encoder.layers.").replace(".attention.out.", ".self_attn.out_proj.")
    if ".attention.qkv." not in source:
        return (source,)
    return tuple(source.replace(".attention.qkv.", f".self_attn.{part}_proj.") for part in "qkv")


def _source_shape(spec: BackboneSpec, name: str) -> tuple[int, ...]:
    if name == PATCH_EMBEDDING:
        return (spec.width, 3, spec.patch_size, spec.patch_size)
    shape = parameter_shapes(spec)[name]
    return (shape[0] // 3, *shape[1:]) if ".attention.qkv." in name else shape


def _some(keys: list[str]) -> str:
    """The first keys of a list that may be long, and how many there are in all."""
    shown = ", ".join(keys[:5])
    return shown if len(keys) <= 5 else f"{shown} and {len(keys) - 5} more"
