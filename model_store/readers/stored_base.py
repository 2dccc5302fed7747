"""A store's encoder as the base of adapters, where the folder of the model that it was built from is gone.

A store has parameters by their canonical names. Here they get the names and shapes back that they have in
files of Hugging Face, where nothing was computed with them. What was computed (DINOv2's linears times their
layer scale, interpolated positions) no adapter can change without the files.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from mass_serve.backbone.architecture import Architecture, Pooling, bias_of, weight_of
from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.format.tensor_files import TensorSpec
from mass_serve.model_store.readers.adapter_base import BASE_NAME
from mass_serve.model_store.readers.adapters import AdaptedWeights, changed_parameters
from mass_serve.model_store.readers.checkpoint import Checkpoint
from mass_serve.model_store.readers.clip import ClipVision
from mass_serve.model_store.readers.dinov2 import Dinov2
from mass_serve.model_store.readers.family import Description, Source
from mass_serve.model_store.readers.json_files import ConfigFile, read_json_object
from mass_serve.model_store.readers.siglip import Siglip
from mass_serve.model_store.readers.vit import Vit
from mass_serve.model_store.readers.weight_files import ADAPTER_CONFIG, WeightFiles

_Family = ClipVision | Dinov2 | Siglip | Vit
# The families of encoders whose embedding has a LayerNorm or none, and a class token or none. An adapter that
# fits two is taken for DINOv2's, for what that multiplies is refused, and the rest is the same in both.
_FAMILIES: Mapping[tuple[bool, bool], tuple[_Family, ...]] = {
    (True, True): (ClipVision(),),
    (False, True): (Dinov2(), Vit()),
    (False, False): (Siglip(),),
}

_GIVE_FOLDER = (
    f"copy the adapter's folder and write the folder of the pretrained model as {BASE_NAME} into the copy's "
    f"{ADAPTER_CONFIG}"
)


@dataclass(frozen=True)
class StoredBase:
    """The pretrained encoder of a store."""

    architecture: Architecture
    read: Callable[[str], Tensor]  # a parameter, on the CPU, by its canonical name

    def adapted(self, adapter: Path) -> Checkpoint:
        """Returns this encoder as the PEFT adapter in a folder changes it. Raises CheckpointError."""
        changed = changed_parameters(adapter)
        family = _family_of(self.architecture, adapter, changed)
        keys = family.names(changed)

        def key_of(parameter: str) -> str | None:
            key = keys[parameter]
            if key in family.computed_with:
                raise CheckpointError(
                    f"{adapter} changes {parameter}, which the store has only as a part of "
                    f"{family.computed_with[key]}: {_GIVE_FOLDER}"
                )
            return key

        path = adapter / family.config_file
        config = ConfigFile(path, read_json_object(path) if path.exists() else {})
        weights = AdaptedWeights(adapter, _EncoderWeights(family.kept, self.read), key_of)
        return Checkpoint(adapter, weights, family, (config,), None)


class _StoredFamily:
    """A family as far as the files of one of its encoders can be made of what a store has of it."""

    def __init__(self, family: _Family, stored: Architecture) -> None:
        self.title, self.config_file, self.classifier = family.title, family.config_file, family.classifier
        self.reads, self.names, self.hidden_layer = family.reads, family.names, family.hidden_layer
        self._family, self._stored = family, stored
        # Nothing of a configuration matters to names and shapes but what the architecture says.
        sources = family.sources(stored, Description(Path(), {}, {}, None))
        self.kept = {name: source for name, source in sources.items() if _is_plain(source)}
        # The parameter of the store that each other tensor of the files is a part of.
        self.computed_with = {
            key: name for name, source in sources.items() if not _is_plain(source) for key in source.needed
        }

    def fits(self, parameters: Iterable[str]) -> bool:
        """Tells whether each of the parameters that an adapter changes is one of such an encoder's."""
        known = {key for source in self.kept.values() for key in source.keys} | self.computed_with.keys()
        known |= {weight_of(self.classifier), bias_of(self.classifier)}
        return all(name is None or name in known for name in self.names(parameters).values())

    def architecture(self, description: Description) -> Architecture:
        """Returns the store's; an adapter with a classifier has the pooling that the classifier takes."""
        if weight_of(self.classifier) not in description.weights:
            return self._stored
        return replace(self._stored, pooling=Pooling(None, self._family.classifier_pooling))

    def sources(self, architecture: Architecture, description: Description) -> dict[str, Source]:
        """Returns the places of what the store has as the files have it; the rest is read of the base."""
        sources = self._family.sources(architecture, description)
        return {name: source for name, source in sources.items() if name in self.kept}


class _EncoderWeights(WeightFiles):
    """The tensors that an encoder's files would hold, cut out of its canonical parameters, in float32."""

    def __init__(self, sources: Mapping[str, Source], read: Callable[[str], Tensor]) -> None:
        self.paths = ()
        self.specs = {
            key: TensorSpec(torch.float32, source.shape) for source in sources.values() for key in source.keys
        }
        self._read = read
        self._place = {key: (name, source) for name, source in sources.items() for key in source.keys}

    def read(self, key: str) -> Tensor:
        name, source = self._place[key]
        return source.undone(self._read(name))[key]


def _is_plain(source: Source) -> bool:
    return source.change is None and not source.transposed


def _family_of(architecture: Architecture, adapter: Path, changed: Collection[str]) -> _StoredFamily:
    """Returns the family whose names an adapter has, or the last one that the encoder could be of."""
    if architecture.reads_text:
        raise CheckpointError(
            f"{adapter} is of an encoder of texts, and there are no names of such: {_GIVE_FOLDER}"
        )
    embedding = architecture.patches
    could_be = _FAMILIES.get((embedding.has_norm, embedding.has_class_token))
    if could_be is None:
        raise CheckpointError(f"{adapter}: the store's encoder is none that adapters name: {_GIVE_FOLDER}")
    families = [_StoredFamily(family, architecture) for family in could_be]
    return next((family for family in families if family.fits(changed)), families[-1])
