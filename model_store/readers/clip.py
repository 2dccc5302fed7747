"""CLIP's vision encoder as Hugging Face writes it: sizes from config.json, and a table of names.

`CLIPVisionModel`, `CLIPVisionModelWithProjection` and `CLIPModel` (whose text tower is ignored) name the
same tensors with and without a `vision_model.` prefix. `CLIPForImageClassification` has a classifier beside
them, which takes the mean over the patches before the last LayerNorm. Configurations on disk may leave out
whatever equals CLIP's defaults, so the defaults are part of the format.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mass_serve.backbone.architecture import CHANNELS, Architecture, Pooled, Pooling, bias_of, weight_of
from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.format.architecture_v1 import FlatArchitecture
from mass_serve.model_store.format.field_types import first_problem
from mass_serve.model_store.readers.family import Description, LinearClassifier, Source
from mass_serve.model_store.readers.transformers_names import stacked_sources, weight_and_bias, with_prefix

VISION_DEFAULTS: dict[str, Any] = {
    "image_size": 224,
    "patch_size": 32,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "projection_dim": 512,
    "num_channels": 3,
}
_MODEL_TYPES = ("clip", "clip_vision_model")
_ACTIVATIONS = ("quick_gelu", "gelu")  # named as ours
_WITH_PROJECTION = {"CLIPVisionModelWithProjection", "CLIPModel"}
_PROJECTION = "visual_projection"
_LAST_NORM = "post_layernorm"
_PREFIX = "vision_model."
# In files, and here.
_MISSPELT, _FIRST_NORM = "pre_layrnorm", "pre_layernorm"


class ClipVision(LinearClassifier):
    """The family of CLIP vision encoders."""

    title = "CLIP vision encoders (clip, clip_vision_model)"
    config_file = "config.json"
    classifier = "classifier"
    classifier_pooling: Pooled = "mean_without_norm"

    def reads(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:  # noqa: ARG002
        """Tells a checkpoint by its `model_type`."""
        return config.get("model_type") in _MODEL_TYPES

    def names(self, keys: Iterable[str]) -> dict[str, str | None]:
        """Strips the prefix and spells LayerNorm right; None for the text tower and for buffers.

        A model with a classifier does not use its last LayerNorm, nor the projection that an adapter's base
        may have.
        """
        names = {key: _name(key) for key in keys}
        if weight_of(self.classifier) in names.values():
            unused = {weight_of(_LAST_NORM), bias_of(_LAST_NORM), weight_of(_PROJECTION)}
            return {key: None if name in unused else name for key, name in names.items()}
        return names

    def key(self, name: str, description: Description) -> str:  # noqa: ARG002
        """Returns the name in a file of transformers: `names` undone."""
        return with_prefix(name, _PREFIX, (self.classifier, _PROJECTION)).replace(_FIRST_NORM, _MISSPELT)

    def architecture(self, description: Description) -> Architecture:
        """Reads the encoder's sizes from config.json: of a full CLIPModel the vision tower's.

        There is a projection where the weights hold one or the class named in the config demands it, and none
        before a classifier, which takes the mean over the patches. Raises CheckpointError for sizes that
        cannot be.
        """
        path, config = description.path, description.config
        vision = {**VISION_DEFAULTS, **_vision_config(path, config)}
        _check_supported(path, vision)
        demanded = not _WITH_PROJECTION.isdisjoint(_classes(path, config))
        projected = demanded or weight_of(_PROJECTION) in description.weights
        try:
            found = FlatArchitecture(
                image_size=vision["image_size"],
                patch_size=vision["patch_size"],
                width=vision["hidden_size"],
                depth=vision["num_hidden_layers"],
                num_attention_heads=vision["num_attention_heads"],
                mlp_width=vision["intermediate_size"],
                activation=vision["hidden_act"],
                layer_norm_eps=vision["layer_norm_eps"],
                projection_dim=vision["projection_dim"] if projected else None,
            ).architecture()
        except ValidationError as error:
            raise CheckpointError(f"{path}: {first_problem(error)}") from error
        if weight_of(self.classifier) in description.weights:
            return replace(found, pooling=Pooling(None, self.classifier_pooling))
        return found

    def sources(self, architecture: Architecture, description: Description) -> dict[str, Source]:  # noqa: ARG002
        """Returns the place of every canonical parameter; the parts of a fused one share its rows evenly."""
        return stacked_sources(architecture, _keys(architecture))


def _name(key: str) -> str | None:
    if key.startswith(("text_model.", "text_projection.")) or key == "logit_scale":
        return None
    if key.endswith(".position_ids"):
        return None
    return key.removeprefix(_PREFIX).replace(_MISSPELT, _FIRST_NORM)


def _keys(architecture: Architecture) -> dict[str, tuple[str, ...]]:
    """THE table: CLIP's names for every canonical parameter; the fused qkv is q, k and v there."""
    embedding, pooling = architecture.patches, architecture.pooling
    return {
        weight_of(embedding.linear): ("embeddings.patch_embedding.weight",),
        embedding.class_token: ("embeddings.class_embedding",),
        embedding.positions: ("embeddings.position_embedding.weight",),
        **weight_and_bias(embedding.norm, _FIRST_NORM),
        **block_table(architecture),
        **weight_and_bias(pooling.norm, _LAST_NORM),
        weight_of(Pooling.linear): (weight_of(_PROJECTION),),
    }


def block_table(architecture: Architecture) -> dict[str, tuple[str, ...]]:
    """The part of the table that is of the blocks, which SigLIP has, too."""
    table: dict[str, tuple[str, ...]] = {}
    for block in architecture.blocks():
        layer = f"encoder.layers.{block.index}"
        table |= {
            **weight_and_bias(block.norm1, f"{layer}.layer_norm1"),
            **weight_and_bias(block.qkv, *(f"{layer}.self_attn.{part}_proj" for part in "qkv")),
            **weight_and_bias(block.out, f"{layer}.self_attn.out_proj"),
            **weight_and_bias(block.norm2, f"{layer}.layer_norm2"),
            **weight_and_bias(block.fc1, f"{layer}.mlp.fc1"),
            **weight_and_bias(block.fc2, f"{layer}.mlp.fc2"),
        }
    return table


def _check_supported(path: Path, vision: dict[str, Any]) -> None:
    if vision["num_channels"] != CHANNELS:
        raise CheckpointError(f"{path}: num_channels must be {CHANNELS}, found {vision['num_channels']}")
    if vision["hidden_act"] not in _ACTIVATIONS:
        raise CheckpointError(
            f"{path}: hidden_act must be {' or '.join(_ACTIVATIONS)}, found {vision['hidden_act']!r}"
        )


def _classes(path: Path, config: Mapping[str, Any]) -> list[str]:
    classes = config.get("architectures") or []
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise CheckpointError(f"{path}: architectures must be a list of class names, found {classes!r}")
    return classes


def _vision_config(path: Path, config: Mapping[str, Any]) -> Mapping[str, Any]:
    if config["model_type"] == "clip_vision_model":
        return config
    vision = config.get("vision_config") or {}
    if not isinstance(vision, dict):
        raise CheckpointError(f"{path}: vision_config must be an object")
    # The projection belongs to the pair of towers; its width in vision_config is a leftover.
    return vision | {"projection_dim": config.get("projection_dim", VISION_DEFAULTS["projection_dim"])}
