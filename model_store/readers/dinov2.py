"""DINOv2 as Hugging Face writes it, with and without registers: sizes from config.json, and a table of names.

`Dinov2Model`, `Dinov2ForImageClassification` and their namesakes with registers name the same tensors, with a
prefix or not. The layer scale becomes a part of the linear before it. Positions were learned for images of
518 pixels: they are interpolated, once, for the size that the model's preprocessing cuts images to.
Configurations on disk may leave out whatever equals the defaults, so the defaults are part of the format.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mass_serve.backbone.architecture import Architecture, Pooled, bias_of, weight_of
from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.format.field_types import LARGEST_SIZE
from mass_serve.model_store.readers.changes import LayerScale, Positions
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
    "patch_size": 14,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "mlp_ratio": 4,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "qkv_bias": True,
    "use_swiglu_ffn": False,
    "num_channels": 3,
}
_PLAIN, _WITH_REGISTERS = "dinov2", "dinov2_with_registers"
_DEFAULTS_WITH_REGISTERS = DEFAULTS | {"patch_size": 16, "num_register_tokens": 4}
# Beyond that nobody interpolates, and a configuration could ask for any amount of memory.
_MOST_ENLARGED = 4
_POSITIONS, _REGISTERS = "embeddings.position_embeddings", "embeddings.register_tokens"


class Dinov2(LinearClassifier):
    """The family of DINOv2 encoders."""

    title = "DINOv2 (dinov2, dinov2_with_registers)"
    config_file = "config.json"
    classifier = "classifier"
    classifier_pooling: Pooled = "class_and_mean"

    def reads(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:  # noqa: ARG002
        """Tells a checkpoint by its `model_type`."""
        return config.get("model_type") in (_PLAIN, _WITH_REGISTERS)

    def names(self, keys: Iterable[str]) -> dict[str, str | None]:
        """Strips the prefix; None for the mask token, which only pre-training needs."""
        bare = {
            key: as_saved(key.removeprefix(f"{_PLAIN}.").removeprefix(f"{_WITH_REGISTERS}.")) for key in keys
        }
        return {key: None if name == "embeddings.mask_token" else name for key, name in bare.items()}

    def key(self, name: str, description: Description) -> str:
        """Returns the name in a file of transformers: `names` undone."""
        return with_prefix(name, f"{description.config['model_type']}.", (self.classifier,))

    def architecture(self, description: Description) -> Architecture:
        """Reads the encoder's sizes from config.json, and the image size where its preprocessing is.

        A classifier takes the class token and the mean over the patches, side by side. Raises CheckpointError
        for sizes that cannot be.
        """
        path, config = description.path, _complete(description)
        check_channels(path, config)
        gated = config["use_swiglu_ffn"]
        pooled = self.classifier_pooling if weight_of(self.classifier) in description.weights else "class"
        return checked_architecture(
            path,
            {
                "embedding": {
                    "kind": "patches",
                    "image_size": _image_size(description, config),
                    "patch_size": square_edge(path, config, "patch_size"),
                    "bias": True,
                    "class_token": True,
                    "registers": config["num_register_tokens"],
                    "norm": False,
                },
                "block": {
                    "kind": "pre_norm",
                    "width": config["hidden_size"],
                    "num_attention_heads": config["num_attention_heads"],
                    "mlp_width": _mlp_width(path, config),
                    "activation": "silu" if gated else activation_of(path, config),
                    "gated": gated,
                    "qkv_bias": config["qkv_bias"],
                    "layer_norm_eps": config["layer_norm_eps"],
                },
                "depth": config["num_hidden_layers"],
                "pooling": {"kind": pooled, "projection_dim": None},
            },
        )

    def sources(self, architecture: Architecture, description: Description) -> dict[str, Source]:
        """Returns the place of every canonical parameter."""
        embedding, width = architecture.patches, architecture.width
        sources = stacked_sources(architecture, _table(architecture))
        for block in architecture.blocks():
            for index, linear in ((1, block.out), (2, block.fc2)):
                scale = LayerScale(f"encoder.layer.{block.index}.layer_scale{index}.lambda1", width)
                for name in (weight_of(linear), bias_of(linear)):
                    sources[name] = replace(sources[name], change=scale)
        sources[embedding.class_token] = Source(("embeddings.cls_token",), (1, 1, width))
        return sources | {embedding.positions: _positions(architecture, description)}


def _complete(description: Description) -> dict[str, Any]:
    if description.config.get("model_type") == _WITH_REGISTERS:
        return _DEFAULTS_WITH_REGISTERS | dict(description.config)
    return DEFAULTS | dict(description.config) | {"num_register_tokens": 0}


def _image_size(description: Description, config: Mapping[str, Any]) -> int:
    """The size of the images that come: that of the positions only where nothing else says it."""
    path, learned = description.path, square_edge(description.path, config, "image_size")
    if learned < square_edge(path, config, "patch_size"):
        raise CheckpointError(f"{path}: patch_size {config['patch_size']} exceeds image_size {learned}")
    if description.crop is None:
        return learned if description.base is None else description.base.patches.image_size
    if description.crop > _MOST_ENLARGED * learned:
        raise CheckpointError(
            f"{path.parent}: images are cut to {description.crop} pixels, but the positions were learned for "
            f"{learned}: they can be interpolated for {_MOST_ENLARGED * learned} at most"
        )
    return description.crop


def _mlp_width(path: Path, config: Mapping[str, Any]) -> int:
    width, ratio = config["hidden_size"], config["mlp_ratio"]
    if type(width) is not int or type(ratio) not in (int, float) or not 0 < ratio <= LARGEST_SIZE:
        raise CheckpointError(
            f"{path}: hidden_size and mlp_ratio must be numbers from 0 to {LARGEST_SIZE}, "
            f"found {str(width)[:40]} and {str(ratio)[:40]}"
        )
    hidden = int(width * ratio)
    # SwiGLU has three matrices where an MLP has two, and so two thirds of the width, in steps of 8.
    return -(-int(hidden * 2 / 3) // 8) * 8 if config["use_swiglu_ffn"] else hidden


def _positions(architecture: Architecture, description: Description) -> Source:
    """The place of the positions and registers, which are another grid's where images have another size."""
    embedding, config = architecture.patches, _complete(description)
    learned = square_edge(description.path, config, "image_size") // embedding.patch_size
    side = embedding.image_size // embedding.patch_size
    source = Source((_POSITIONS,), (1, 1 + learned**2, architecture.width))
    if learned == side and not embedding.num_registers:
        return source
    registers = _REGISTERS if embedding.num_registers else None
    change = Positions(side, architecture.width, registers, embedding.num_registers)
    return replace(source, change=change)


def _table(architecture: Architecture) -> dict[str, tuple[str, ...]]:
    """THE table: DINOv2's names for every canonical parameter; qkv is query, key and value there."""
    embedding = architecture.patches
    first, second = ("weights_in", "weights_out") if architecture.block.is_gated else ("fc1", "fc2")
    table = {
        **weight_and_bias(embedding.linear, "embeddings.patch_embeddings.projection"),
        embedding.class_token: ("embeddings.cls_token",),
        embedding.positions: (_POSITIONS,),
        **weight_and_bias(architecture.pooling.norm, "layernorm"),
    }
    for block in architecture.blocks():
        layer = f"encoder.layer.{block.index}"
        attention = f"{layer}.attention.attention"
        table |= {
            **weight_and_bias(block.norm1, f"{layer}.norm1"),
            **weight_and_bias(block.qkv, *(f"{attention}.{part}" for part in ("query", "key", "value"))),
            **weight_and_bias(block.out, f"{layer}.attention.output.dense"),
            **weight_and_bias(block.norm2, f"{layer}.norm2"),
            **weight_and_bias(block.fc1, f"{layer}.mlp.{first}"),
            **weight_and_bias(block.fc2, f"{layer}.mlp.{second}"),
        }
    return table
