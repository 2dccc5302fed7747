"""One model on disk, of whichever family, read one canonical parameter at a time, without transformers."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mass_serve.backbone.architecture import AnyPooling, Architecture
from mass_serve.merging import ThinDelta, task_vector
from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.format.entries import HiddenSpec
from mass_serve.model_store.format.heads import DENSE_BIAS, DENSE_WEIGHT, NORM_BIAS, NORM_WEIGHT
from mass_serve.model_store.format.tensor_files import LARGEST_NUMBER, is_moderate
from mass_serve.model_store.readers.adapters import AdaptedWeights, changed_parameters
from mass_serve.model_store.readers.bert import Bert
from mass_serve.model_store.readers.clip import ClipVision
from mass_serve.model_store.readers.dinov2 import Dinov2
from mass_serve.model_store.readers.distilbert import DistilBert
from mass_serve.model_store.readers.family import Description, Family, Source, classifier_names
from mass_serve.model_store.readers.json_files import ConfigFile, read_json_object
from mass_serve.model_store.readers.modernbert import ModernBert
from mass_serve.model_store.readers.open_clip_vision import OpenClipVision
from mass_serve.model_store.readers.preprocessing import read_crop
from mass_serve.model_store.readers.roberta import Roberta
from mass_serve.model_store.readers.siglip import Siglip
from mass_serve.model_store.readers.thin_changes import thin_change
from mass_serve.model_store.readers.timm_vision import Timm
from mass_serve.model_store.readers.vit import Vit
from mass_serve.model_store.readers.weight_files import WeightFiles, open_weights

CONFIG_FILE = "config.json"
_QUANTISATION = "quantization_config"
# How transformers and PEFT name what classifies tokens.
_MODEL_OF_TOKENS, _ADAPTER_OF_TOKENS = "ForTokenClassification", "TOKEN_CLS"
# Those of weights, and that of old buffers of positions.
_USUAL_DTYPES = {torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64}
# Another family is another file beside `clip`, and an entry here. First those that are told by their tensors:
# in a folder of the hub the configuration of another form may lie beside them.
FAMILIES: tuple[Family, ...] = (
    *(OpenClipVision(), ClipVision(), Vit(), Dinov2(), Siglip(), Timm()),
    *(Bert(), DistilBert(), Roberta(), ModernBert()),
)


class Checkpoint:
    """One model on disk: its architecture at once, its weights one canonical parameter at a time.

    A fine-tuned model may leave the projection to the model that it was fine-tuned from, its base; then the
    architecture has it, and `over` reads it there.
    """

    def __init__(
        self,
        folder: Path,
        weights: WeightFiles,
        family: Family,
        configs: Sequence[ConfigFile],
        base: Architecture | None,
    ) -> None:
        """Checks the weights of `family` in `folder` against what the last of `configs` says of them.

        An adapter's own comes before its base's: it may name other classes. Raises CheckpointError.
        """
        self.folder = folder
        self.configs = tuple(configs)
        self._family, self._weights = family, weights
        self._moderate: set[str] = set()  # keys of tensors that were found to be so
        self._keys = _keys_by_name(folder, family, weights.specs)
        specs = {name: weights.specs[key] for name, key in self._keys.items()}
        config = self.configs[-1]
        each_token = _classifies_tokens(weights, self.configs)
        self._description = Description(
            config.path, config.content, specs, base, read_crop(folder), each_token
        )
        own = family.architecture(self._description)
        self.architecture = _with_projection_of(base, own)
        self._use(family.sources(own, self._description), own)
        self._check_keys()

    @classmethod
    def open(cls, path: Path, allow_pickle: bool = False, base: Architecture | None = None) -> Checkpoint:
        """Opens the model in a directory, or in a weights file whose directory has its configuration.

        `base` is the architecture of the model that it was fine-tuned from. Only headers are read (pickles
        whole). Raises CheckpointError naming what is wrong: a missing file, another architecture, missing or
        unexpected keys, wrong shapes.
        """
        folder = path if path.is_dir() else path.parent
        weights = open_weights(path, allow_pickle)
        family, config = _family_of(folder, weights)
        _refuse_quantised(config, weights)
        return cls(folder, weights, family, (config,), base)

    def adapted(self, folder: Path) -> Checkpoint:
        """Returns this model as the PEFT adapter in a folder changes it. Raises CheckpointError."""
        # Together: what a base alone has no use for, as BERT's pooler, a classifier of the adapter may need.
        names = self._family.names([*self._weights.specs, *changed_parameters(folder)])
        named = {names[key]: key for key in self._weights.specs}

        def key_of(parameter: str) -> str | None:
            name = names[parameter]
            return None if name is None else named.get(name, parameter)

        path = folder / self._family.config_file
        own = (ConfigFile(path, read_json_object(path)),) if path.exists() else ()
        weights = AdaptedWeights(folder, self._weights, key_of)
        return Checkpoint(folder, weights, self._family, (*own, *self.configs), self.architecture)

    @property
    def input_files(self) -> tuple[Path, ...]:
        """The files that decide what the parameters are."""
        configs = (config.path for config in self.configs if config.path.exists())
        return (*configs, *self._weights.paths)

    def said(self, key: str) -> tuple[Path, Any] | None:
        """Returns what the configuration says under a key, with the file that does; None where none does."""
        found = ((config.path, config.content.get(key)) for config in self.configs)
        return next(((path, value) for path, value in found if value is not None), None)

    @property
    def classifies_tokens(self) -> bool:
        """Whether its classifier takes each token of a text, and not the text as a whole."""
        return self._description.each_token and self.architecture.reads_text

    @property
    def is_adapter(self) -> bool:
        """Whether it is a base as an adapter changes it."""
        return isinstance(self._weights, AdaptedWeights)

    @property
    def left_out(self) -> tuple[str, ...]:
        """The parameters of the architecture that are not here: `over` reads them of the base."""
        return tuple(name for name in self.architecture.parameter_shapes() if name not in self._sources)

    def pooled(self, pooling: AnyPooling) -> Checkpoint:
        """The same model with another pooling: what that has no use for is not read.

        Raises CheckpointError where the model has a parameter of that pooling in another shape.
        """
        other = copy(self)
        other.architecture = replace(self.architecture, pooling=pooling)
        sources = self._family.sources(other.architecture, self._description)
        here = {name: place for name, place in sources.items() if self._keys.keys() >= place.needed.keys()}
        other._use(here, other.architecture)
        return other

    def classifier(self) -> dict[str, Tensor] | None:
        """Reads the tensors of the head that the model itself classifies with, as `format.heads` names them.

        None where it has none. Raises CheckpointError as `parameter` does.
        """
        keys = self._classifier_keys(self._description)
        for key in keys.values():
            self._check_dtype(self._keys[key])
        tensors = {name: self._finite(self._keys[key]) for name, key in keys.items()}
        if self.hidden_layer is not None and DENSE_WEIGHT in tensors:
            width = tensors[DENSE_WEIGHT].shape[:1]
            tensors.setdefault(DENSE_BIAS, torch.zeros(width))
            if NORM_WEIGHT in tensors:
                tensors.setdefault(NORM_BIAS, torch.zeros(width))
        return tensors or None

    @property
    def hidden_layer(self) -> HiddenSpec | None:
        """The hidden layer of the model's own classifier; None where that is a linear alone."""
        names = self._family.hidden_layer(self._description)
        return None if names is None else names.spec

    def dtype(self, name: str) -> torch.dtype:
        """Returns the dtype in which `parameter` gives a parameter."""
        if self._sources[name].change is not None:
            return torch.float32
        found = {self._weights.specs[self._keys[key]].dtype for key in self._sources[name].keys}
        dtypes = [dtype for dtype in found if dtype is not None]
        # What an adapter changes is float32, and its base may be less.
        if len(dtypes) != len(found) or (len(dtypes) > 1 and not self.is_adapter):
            raise CheckpointError(f"{self.folder}: the parts of {name} have different dtypes")
        return functools.reduce(torch.promote_types, dtypes)

    @property
    def nbytes(self) -> int:
        """The bytes of all parameters that are here, as `parameter` gives them."""
        return sum(math.prod(self._shapes[name]) * self.dtype(name).itemsize for name in self._sources)

    def parameter(self, name: str) -> Tensor:
        """Reads a parameter by its canonical name, in the architecture's shape.

        It has the file's dtype, or float32 where it is made of tensors that the file has. Raises
        CheckpointError naming a weight that holds NaN, Inf or what float32 could not compute with.
        """
        return self._made(name, self._finite)

    def _made(self, name: str, read: Callable[[str], Tensor]) -> Tensor:
        """Makes a parameter of the tensors that it has in the files."""
        source = self._sources[name]
        parts = [read(self._keys[key]) for key in source.keys] or [torch.empty(0)]
        whole = parts[0] if len(parts) == 1 else torch.cat(parts)
        whole = whole.T.contiguous() if source.transposed else whole
        if source.change is not None:
            whole = source.change(whole, [read(self._keys[key]) for key in source.change.tensors])
            self._refuse_immoderate(whole, f"what {' and '.join(source.needed)} make of {name}")
        return whole.reshape(self._shapes[name])

    def over(self, base: Callable[[str], Tensor]) -> Callable[[str], Tensor]:
        """Returns what reads any parameter of the architecture: here, or of the base what is left to it."""
        return lambda name: self.parameter(name) if name in self._sources else base(name)

    def change(self, name: str, before: Tensor) -> Tensor | ThinDelta:
        """Reads how a parameter of the architecture differs from what it was `before`.

        What is left to the base does not. The change of an adapter is thin, where its own base was the same.
        """
        thin = self._thin_change(name, before) if len(before.shape) == 2 else None
        if thin is not None:
            return thin
        return task_vector(before, self.over(lambda _: before)(name))

    def _thin_change(self, name: str, before: Tensor) -> ThinDelta | None:
        rows, columns = before.shape
        if name not in self._sources:
            return ThinDelta.none((rows, columns))
        if not isinstance(self._weights, AdaptedWeights):
            return None
        thin = thin_change(self._sources[name], self._keys, self._weights, (rows, columns))
        if thin is None or thin.shape != before.shape:
            return None
        own = self._made(name, self._weights.base.read)
        return thin if torch.equal(own.float(), before.float()) else None

    def _finite(self, key: str) -> Tensor:
        tensor = self._weights.read(key)
        if key not in self._moderate:  # what is read again is what was read before
            self._refuse_immoderate(tensor, key)
            self._moderate.add(key)
        return tensor

    def _refuse_immoderate(self, tensor: Tensor, key: str) -> None:
        if not is_moderate(tensor):
            raise CheckpointError(
                f"{self.folder}: {key} holds NaN, Inf or a number beyond {LARGEST_NUMBER:g}"
            )

    def _classifier_keys(self, description: Description) -> dict[str, str]:
        """The parts of a classifier so described that are here, by what heads call them."""
        parts = classifier_names(self._family, description)
        return {part: key for part, key in parts.items() if key in self._keys}

    def _check_keys(self) -> None:
        """Raises CheckpointError where the files hold what the family does not know.

        Beside a classifier of tokens the layer may lie that its base had for whole texts.
        """
        known = {key for source in self._sources.values() for key in source.needed}
        for each_token in {False, self._description.each_token}:
            known.update(self._classifier_keys(replace(self._description, each_token=each_token)).values())
        if extra := sorted(self._keys[key] for key in self._keys.keys() - known):
            raise CheckpointError(f"{self.folder}: unexpected {_some(extra)}")

    def _use(self, sources: Mapping[str, Source], architecture: Architecture) -> None:
        """Reads parameters of `architecture` from `sources` from now on.

        Raises CheckpointError where one of those is not there or has another shape.
        """
        self._sources, self._shapes = sources, architecture.parameter_shapes()
        needed = {key for source in sources.values() for key in source.needed}
        if missing := sorted(needed - self._keys.keys()):
            raise CheckpointError(f"{self.folder}: missing {_some(missing)}")
        for name, source in sources.items():
            for key, shape in source.needed.items():
                self._check_tensor(self._keys[key], shape)
            self.dtype(name)

    def _check_tensor(self, key: str, expected: tuple[int, ...]) -> None:
        found = self._weights.specs[key]
        if found.shape != expected:
            raise CheckpointError(
                f"{self.folder}: {key} has shape {list(found.shape)}, expected {list(expected)}"
            )
        self._check_dtype(key)

    def _check_dtype(self, key: str) -> None:
        dtype = self._weights.specs[key].dtype
        if dtype is None or not dtype.is_floating_point:
            raise CheckpointError(
                f"{self.folder}: {key} must be float64, float32, float16 or bfloat16: quantised weights "
                "cannot be read, so give the model as it was trained"
            )


def _family_of(folder: Path, weights: WeightFiles) -> tuple[Family, ConfigFile]:
    """Returns the family of a model and its configuration. Raises CheckpointError."""
    for family in FAMILIES:
        path = folder / family.config_file
        config = read_json_object(path) if path.exists() else {}
        if family.reads(config, weights.specs):
            return family, ConfigFile(path, config)
    path = folder / CONFIG_FILE
    model_type = read_json_object(path).get("model_type")
    *first, last = (family.title for family in FAMILIES)
    known = f"{', '.join(first)} and {last}"
    raise CheckpointError(f"{path}: model_type is {model_type!r}, but only {known} can be stored")


def _classifies_tokens(weights: WeightFiles, configs: Sequence[ConfigFile]) -> bool:
    """Tells whether a model's classifier is for each token of a text: by its class, or by its adapter."""
    if isinstance(weights, AdaptedWeights) and weights.task_type is not None:
        return weights.task_type == _ADAPTER_OF_TOKENS
    classes = configs[0].content.get("architectures")
    return isinstance(classes, list) and any(str(name).endswith(_MODEL_OF_TOKENS) for name in classes)


def _refuse_quantised(config: ConfigFile, weights: WeightFiles) -> None:
    """Raises CheckpointError where a configuration says that the weights are quantised, and they are.

    Models that were trained over a quantised base may say so as well.
    """
    quantised = config.content.get(_QUANTISATION)
    if quantised and any(spec.dtype not in _USUAL_DTYPES for spec in weights.specs.values()):
        method = quantised.get("quant_method") if isinstance(quantised, dict) else quantised
        raise CheckpointError(
            f"{config.path}: {_QUANTISATION} says that the weights are quantised ({str(method)[:40]}): "
            "give the model as it was before that, in float32, float16 or bfloat16"
        )


def _with_projection_of(base: Architecture | None, own: Architecture) -> Architecture:
    if base is None or own.width != base.width or own.pooling != base.pooling.unprojected:
        return own
    return replace(own, pooling=base.pooling)


def _keys_by_name(folder: Path, family: Family, files_keys: Iterable[str]) -> dict[str, str]:
    """The keys in the files by what the family calls them.

    Raises CheckpointError for a parameter that is there twice, under two names.
    """
    keys: dict[str, str] = {}
    for key, name in family.names(files_keys).items():
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
