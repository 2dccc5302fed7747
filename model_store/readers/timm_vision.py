"""ViT, DeiT and DINOv2 as timm writes them: a config.json with an `architecture`, and shapes that say sizes.

The names are those of timm's `VisionTransformer`. What neither a shape nor `model_args` says follows from the
architecture's name: attention heads, activation and the epsilon of the LayerNorms. A layer scale becomes a
part of the linear before it, and registers become rows of the positions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from mass_serve.backbone.architecture import Architecture, bias_of, weight_of
from mass_serve.kernels.activation_names import Activation
from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.readers.changes import LayerScale, Registers
from mass_serve.model_store.readers.family import Description, LinearClassifier, Source
from mass_serve.model_store.readers.transformers_names import (
    checked_architecture,
    stacked_sources,
    weight_and_bias,
)

_HEADS = {
    "tiny": 3,
    "small": 6,
    "medium": 8,
    "base": 12,
    "large": 16,
    "huge": 16,
    "giant": 16,
    "gigantic": 16,
}
_KNOWN = re.compile(
    rf"(?:vit|deit|deit3)_({'|'.join(_HEADS)})_patch\d+(_clip)?(_quickgelu)?(?:_reg\d)?(?:_gap)?(?:_dinov2|_\d+)(?:_miil)?"
)
_OTHER_HEADS = {
    "vit_base_patch16_gap_224": 16,
    "vit_giant_patch14_dinov2": 24,
    "vit_giant_patch14_reg4_dinov2": 24,
}
_ACTIVATIONS: Mapping[str, Activation] = {
    "gelu": "gelu",
    "quick_gelu": "quick_gelu",
    "gelu_tanh": "gelu_tanh",
}
# Arguments of a model that are read here, that its tensors show, or that only training needs.
_READ = {"num_heads", "act_layer", "global_pool"}
_SHOWN = {
    *("img_size", "patch_size", "in_chans", "num_classes", "embed_dim", "depth", "mlp_ratio", "qkv_bias"),
    *("init_values", "class_token", "reg_tokens", "no_embed_class", "pre_norm", "fc_norm"),
    *("dynamic_img_size", "dynamic_img_pad", "weight_init", "fix_init"),
}
_TRAINING = "_rate"
_USUAL_IMAGE_SIZE = 224
_CONVOLUTION, _POSITIONS = weight_of("patch_embed.proj"), "pos_embed"
_CLASS_TOKEN, _REGISTERS = "cls_token", "reg_token"
_BLOCK = re.compile(r"blocks\.(\d{1,4})\.")  # no encoder has ten thousand
_NORM_BEHIND_POOLING = "fc_norm"


class Timm(LinearClassifier):
    """The family of timm's vision transformers."""

    title = "vision transformers of timm (vit_*, deit_*, deit3_*, vit_*_dinov2)"
    config_file = "config.json"
    classifier = "head"

    def reads(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:  # noqa: ARG002
        """Tells a checkpoint by its `architecture`."""
        return isinstance(config.get("architecture"), str) and "model_type" not in config

    def names(self, keys: Iterable[str]) -> dict[str, str | None]:
        """Strips what training code puts before the names."""
        return {key: key.removeprefix("module.") for key in keys}

    def architecture(self, description: Description) -> Architecture:
        """Reads the sizes off the shapes. Raises CheckpointError for sizes and parts that cannot be."""
        weights, arguments = description.weights, _arguments(description)
        heads, activation, eps = _usual_sizes(description)
        width, _, patch_size, _ = description.shape(_CONVOLUTION, 4)
        first, _ = description.shape(weight_of("blocks.0.mlp.fc1"), 2)
        _, mlp_width = description.shape(weight_of("blocks.0.mlp.fc2"), 2)
        gated = first == 2 * mlp_width
        return checked_architecture(
            description.path,
            {
                "embedding": {
                    "kind": "patches",
                    "image_size": _image_size(description),
                    "patch_size": patch_size,
                    "bias": bias_of("patch_embed.proj") in weights,
                    "class_token": _CLASS_TOKEN in weights,
                    "registers": description.shape(_REGISTERS, 3)[1] if _REGISTERS in weights else 0,
                    "norm": weight_of("norm_pre") in weights,
                },
                "block": {
                    "kind": "pre_norm",
                    "width": width,
                    "num_attention_heads": arguments.get("num_heads", heads),
                    "mlp_width": mlp_width,
                    "activation": "silu" if gated else _activation(description, arguments, activation),
                    "gated": gated,
                    "qkv_bias": bias_of("blocks.0.attn.qkv") in weights,
                    "layer_norm_eps": eps,
                },
                "depth": 1 + max(int(found[1]) for key in weights if (found := _BLOCK.match(key))),
                "pooling": {"kind": _pooled(description, arguments), "projection_dim": None},
            },
        )

    def sources(self, architecture: Architecture, description: Description) -> dict[str, Source]:
        """Returns the place of every canonical parameter."""
        embedding, width = architecture.patches, architecture.width
        sources = stacked_sources(architecture, _table(architecture, description))
        for block in architecture.blocks():
            for index, linear in ((1, block.out), (2, block.fc2)):
                key = f"blocks.{block.index}.ls{index}.gamma"
                if key in description.weights:
                    for name in (weight_of(linear), bias_of(linear)):
                        sources[name] = replace(sources[name], change=LayerScale(key, width))
        if embedding.has_class_token:
            sources[embedding.class_token] = Source((_CLASS_TOKEN,), (1, 1, width))
        return sources | {embedding.positions: _positions(architecture, description)}


def usual_sizes(name: str) -> tuple[int, Activation, float] | None:
    """Attention heads, activation and the LayerNorms' epsilon of an architecture; None for another kind."""
    found = _KNOWN.fullmatch(name)
    if found is None:
        return None
    size, of_clip, quick = found.groups()
    heads = _OTHER_HEADS.get(name, _HEADS[size])
    return heads, "quick_gelu" if quick else "gelu", 1e-5 if of_clip else 1e-6


def _usual_sizes(description: Description) -> tuple[int, Activation, float]:
    name = description.config["architecture"].partition(".")[
        0
    ]  # a tag may follow, which says where it is from
    if (sizes := usual_sizes(name)) is None:
        raise CheckpointError(
            f"{description.path}: architecture {name!r} is none that can be stored:"
            f" of timm these are vit, deit and deit3 in the sizes {', '.join(_HEADS)}"
        )
    return sizes


def _image_size(description: Description) -> int:
    if description.crop is not None:
        return description.crop
    return _USUAL_IMAGE_SIZE if description.base is None else description.base.patches.image_size


def _arguments(description: Description) -> Mapping[str, Any]:
    arguments = description.config.get("model_args") or {}
    if not isinstance(arguments, Mapping):
        raise CheckpointError(f"{description.path}: model_args must be an object")
    for name, value in arguments.items():
        if value and name not in _READ | _SHOWN and not name.endswith(_TRAINING):
            raise CheckpointError(f"{description.path}: model_args has {name} {value!r}, which is not served")
    return arguments


def _activation(description: Description, arguments: Mapping[str, Any], usual: Activation) -> Activation:
    found = arguments.get("act_layer") or usual
    if not isinstance(found, str) or found not in _ACTIVATIONS:
        raise CheckpointError(
            f"{description.path}: act_layer must be {' or '.join(_ACTIVATIONS)}, found {found!r}"
        )
    return _ACTIVATIONS[found]


def _pooled(description: Description, arguments: Mapping[str, Any]) -> str:
    """The pooling; the LayerNorm of a mean may come before it or after."""
    behind = weight_of(_NORM_BEHIND_POOLING) in description.weights
    gap = "_gap" in description.config["architecture"]
    usual = "avg" if gap or behind else "token"
    found = description.config.get("global_pool") or arguments.get("global_pool") or usual
    if found not in ("token", "avg"):
        raise CheckpointError(f"{description.path}: global_pool must be token or avg, found {found!r}")
    if found == "token":
        return "class"
    return "mean_before_norm" if behind else "mean"


def _positions(architecture: Architecture, description: Description) -> Source:
    """The place of the positions: of the patches alone, or of the tokens before them, too."""
    embedding, width = architecture.patches, architecture.width
    patches = architecture.num_tokens - embedding.tokens_before_patches
    of_patches_alone = description.shape(_POSITIONS, 3)[1] == patches
    rows = patches if of_patches_alone else architecture.num_tokens
    source = Source((_POSITIONS,), (1, rows, width))
    has_rows_to_add = of_patches_alone and embedding.tokens_before_patches > 0
    if has_rows_to_add or embedding.num_registers:
        registers = _REGISTERS if embedding.num_registers else None
        change = Registers(registers, embedding.num_registers, width, embedding.has_class_token, patches)
        return replace(source, change=change)
    return source


def _table(architecture: Architecture, description: Description) -> dict[str, tuple[str, ...]]:
    """THE table: timm's names for every canonical parameter; here too qkv is one matrix."""
    embedding = architecture.patches
    behind = weight_of(_NORM_BEHIND_POOLING) in description.weights
    table = {
        **weight_and_bias(embedding.linear, "patch_embed.proj"),
        embedding.class_token: (_CLASS_TOKEN,),
        embedding.positions: (_POSITIONS,),
        **weight_and_bias(embedding.norm, "norm_pre"),
        **weight_and_bias(architecture.pooling.norm, _NORM_BEHIND_POOLING if behind else "norm"),
    }
    for block in architecture.blocks():
        layer = f"blocks.{block.index}"
        table |= {
            **weight_and_bias(block.norm1, f"{layer}.norm1"),
            **weight_and_bias(block.qkv, f"{layer}.attn.qkv"),
            **weight_and_bias(block.out, f"{layer}.attn.proj"),
            **weight_and_bias(block.norm2, f"{layer}.norm2"),
            **weight_and_bias(block.fc1, f"{layer}.mlp.fc1"),
            **weight_and_bias(block.fc2, f"{layer}.mlp.fc2"),
        }
    return table
