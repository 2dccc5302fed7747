"""ViT and DeiT as Hugging Face writes them: sizes from config.json, and a table of names.

`ViTModel`, `ViTForImageClassification` and DeiT's classes name the same tensors, with a prefix or not. DeiT's
distillation token is the same in every image: it is read as a register. Configurations on disk may leave out
whatever equals the defaults, so the defaults are part of the format.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from mass_serve.backbone.architecture import Architecture, Pooled
from mass_serve.model_store.readers.changes import DistilledPositions
from mass_serve.model_store.readers.family import Description, LinearClassifier, Source
from mass_serve.model_store.readers.transformers_names import (
    activation_of,
    as_saved,
    check_channels,
    checked_architecture,
    square_edge,
    stacked_sources,
    weight_and_bias,
    with_prefix,
)

DEFAULTS: dict[str, Any] = {
    "image_size": 224,
    "patch_size": 16,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "qkv_bias": True,
    "num_channels": 3,
}
_MODEL_TYPES = ("vit", "deit")  # and so the prefixes
_DISTILLATION = "embeddings.distillation_token"
# The tanh pooler, the mask and decoder of pre-training, and the pair of classifiers whose mean DeiT's teacher
# model gives, which no single head is.
_NOT_NEEDED = ("pooler.", "embeddings.mask_token", "decoder.", "cls_classifier.", "distillation_classifier.")


# A block's parts in memory, beside its attention, and in checkpoints.
_BLOCK, _SAVED_BLOCK = "layers.", "encoder.layer."
_SAVED_MLP = {".mlp.fc1.": ".intermediate.dense.", ".mlp.fc2.": ".output.dense."}


class Vit(LinearClassifier):
    """The family of ViT and DeiT encoders."""

    title = "ViT and DeiT (vit, deit)"
    config_file = "config.json"
    classifier = "classifier"
    classifier_pooling: Pooled = "class"

    def reads(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:  # noqa: ARG002
        """Tells a checkpoint by its `model_type`."""
        return config.get("model_type") in _MODEL_TYPES

    def names(self, keys: Iterable[str]) -> dict[str, str | None]:
        """Strips the prefix; None for what only pre-training needs."""
        bare = {key: _as_saved(_without_prefix(key)) for key in keys}
        return {key: None if name.startswith(_NOT_NEEDED) else name for key, name in bare.items()}

    def key(self, name: str, description: Description) -> str:
        """Returns the name in a file of transformers: `names` undone."""
        return with_prefix(name, _prefix(description.config["model_type"]), (self.classifier,))

    def architecture(self, description: Description) -> Architecture:
        """Reads the encoder's sizes from config.json. Raises CheckpointError for sizes that cannot be."""
        path, config = description.path, DEFAULTS | dict(description.config)
        check_channels(path, config)
        return checked_architecture(
            path,
            {
                "embedding": {
                    "kind": "patches",
                    "image_size": square_edge(path, config, "image_size"),
                    "patch_size": square_edge(path, config, "patch_size"),
                    "bias": True,
                    "class_token": True,
                    "registers": int(_DISTILLATION in description.weights),
                    "norm": False,
                },
                "block": {
                    "kind": "pre_norm",
                    "width": config["hidden_size"],
                    "num_attention_heads": config["num_attention_heads"],
                    "mlp_width": config["intermediate_size"],
                    "activation": activation_of(path, config),
                    "gated": False,
                    "qkv_bias": config["qkv_bias"],
                    "layer_norm_eps": config["layer_norm_eps"],
                },
                "depth": config["num_hidden_layers"],
                "pooling": {"kind": self.classifier_pooling, "projection_dim": None},
            },
        )

    def sources(self, architecture: Architecture, description: Description) -> dict[str, Source]:  # noqa: ARG002
        """Returns the place of every canonical parameter."""
        embedding, width = architecture.patches, architecture.width
        sources = stacked_sources(architecture, _table(architecture))
        sources[embedding.class_token] = Source(("embeddings.cls_token",), (1, 1, width))
        positions = Source(("embeddings.position_embeddings",), (1, architecture.num_tokens, width))
        if embedding.num_registers:
            positions = replace(positions, change=DistilledPositions(_DISTILLATION, width))
        return sources | {embedding.positions: positions}


def _table(architecture: Architecture) -> dict[str, tuple[str, ...]]:
    """THE table: ViT's names for every canonical parameter; qkv is query, key and value there."""
    embedding = architecture.patches
    table = {
        **weight_and_bias(embedding.linear, "embeddings.patch_embeddings.projection"),
        embedding.class_token: ("embeddings.cls_token",),
        embedding.positions: ("embeddings.position_embeddings",),
        **weight_and_bias(architecture.pooling.norm, "layernorm"),
    }
    for block in architecture.blocks():
        layer = f"encoder.layer.{block.index}"
        attention = f"{layer}.attention.attention"
        table |= {
            **weight_and_bias(block.norm1, f"{layer}.layernorm_before"),
            **weight_and_bias(block.qkv, *(f"{attention}.{part}" for part in ("query", "key", "value"))),
            **weight_and_bias(block.out, f"{layer}.attention.output.dense"),
            **weight_and_bias(block.norm2, f"{layer}.layernorm_after"),
            **weight_and_bias(block.fc1, f"{layer}.intermediate.dense"),
            **weight_and_bias(block.fc2, f"{layer}.output.dense"),
        }
    return table


def _prefix(model_type: str) -> str:
    return f"{model_type}."


def _without_prefix(key: str) -> str:
    return functools.reduce(str.removeprefix, map(_prefix, _MODEL_TYPES), key)


def _as_saved(name: str) -> str:
    if not name.startswith(_BLOCK):
        return name
    for module, saved in _SAVED_MLP.items():
        name = name.replace(module, saved)
    return as_saved(_SAVED_BLOCK + name.removeprefix(_BLOCK))
