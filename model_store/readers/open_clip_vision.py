"""CLIP's vision encoder as OpenAI and open_clip write it: state dicts, whose shapes say most of the sizes.

The names are those of OpenAI's release, `visual.transformer.resblocks.0.attn.in_proj_weight` and so on.
Training code puts `model.` or `module.` before them; a text tower is ignored. Models of open_clip on the hub
have an open_clip_config.json, other state dicts have no configuration. What only that can say is the MLP's
activation (OpenAI's weights are of quick_gelu, most of open_clip's own of gelu), and the width of a head.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mass_serve.backbone.architecture import CHANNELS, Architecture, Pooling, bias_of, weight_of
from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.format.architecture_v1 import FlatArchitecture
from mass_serve.model_store.format.field_types import first_problem
from mass_serve.model_store.readers.family import Description, LinearClassifier, Source

CONFIG_FILE = "open_clip_config.json"
_TOWER = "visual."
_PREFIXES = ("module.", "model.", _TOWER)
_BLOCK = re.compile(r"transformer\.resblocks\.(\d{1,4})\.")  # no encoder has ten thousand
_CONVOLUTION = weight_of("conv1")
_POSITIONS, _PROJECTION = "positional_embedding", "proj"
_FIRST_MLP = weight_of("transformer.resblocks.0.mlp.c_fc")
# By the encoder's width where no configuration says it; 64 for any other (open_clip's model configurations).
_HEAD_WIDTHS = {1280: 80, 1408: 88, 1664: 104, 1792: 112}
_HEAD_WIDTH = 64
# Parts that our encoder does not have, by what vision_cfg says where a model has none of them either.
_ABSENT: dict[str, Any] = {
    "attentional_pool": False,
    "no_ln_pre": False,
    "pos_embed_type": "learnable",
    "final_ln_after_pool": False,
    "pool_type": "tok",
    "block_type": None,
    "timm_model_name": None,
}


class OpenClipVision(LinearClassifier):
    """The family of CLIP vision encoders in OpenAI's and open_clip's state dicts."""

    title = "CLIP state dicts (OpenAI, open_clip)"
    config_file = CONFIG_FILE
    classifier = None

    def reads(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:  # noqa: ARG002
        """Tells a checkpoint by its first convolution and its blocks: it may have no configuration."""
        bare = {_without(_PREFIXES, key) for key in keys}
        return _CONVOLUTION in bare and _FIRST_MLP in bare

    def names(self, keys: Iterable[str]) -> dict[str, str | None]:
        """Strips what training code puts before the names; None for the text tower.

        A file without any `visual.` is the vision tower alone.
        """
        bare = {key: _without(_PREFIXES[:-1], key) for key in keys}
        towers = any(name.startswith(_TOWER) for name in bare.values())
        return {
            key: None if towers and not name.startswith(_TOWER) else name.removeprefix(_TOWER)
            for key, name in bare.items()
        }

    def architecture(self, description: Description) -> Architecture:
        """Reads the sizes off the shapes. Raises CheckpointError for sizes that cannot be."""
        model = object_in(description.path, description.config, "model_cfg")
        vision = object_in(description.path, model, "vision_cfg")
        _check_supported(description, vision)
        activation = activation_of(description.path, model, description.base)
        positions, convolution = description.shape(_POSITIONS, 2), description.shape(_CONVOLUTION, 4)
        (width, _, patch_size, _), side = convolution, math.isqrt(max(positions[0] - 1, 0))
        mlp_width, _ = description.shape(_FIRST_MLP, 2)
        projected = _PROJECTION in description.weights
        try:
            return FlatArchitecture(
                image_size=vision.get("image_size", side * patch_size),
                patch_size=patch_size,
                width=width,
                depth=1 + max(_blocks(description.weights)),
                num_attention_heads=_num_attention_heads(description, vision, width),
                mlp_width=mlp_width,
                activation=activation,
                layer_norm_eps=(vision.get("norm_kwargs") or {}).get("eps", 1e-5),
                projection_dim=description.shape(_PROJECTION, 2)[1] if projected else None,
            ).architecture()
        except ValidationError as error:
            raise CheckpointError(f"{description.path}: {first_problem(error)}") from error

    def sources(self, architecture: Architecture, description: Description) -> dict[str, Source]:  # noqa: ARG002
        """Returns the place of every canonical parameter: here too qkv is one matrix."""
        keys = _keys(architecture)
        shapes = architecture.parameter_shapes()
        sources = {name: Source((keys[name],), shape) for name, shape in shapes.items()}
        patches, side = weight_of(architecture.patches.linear), architecture.patches.patch_size
        sources[patches] = Source((_CONVOLUTION,), (architecture.width, CHANNELS, side, side))
        projection = weight_of(Pooling.linear)
        if projection in shapes:
            sources[projection] = Source((_PROJECTION,), shapes[projection][::-1], transposed=True)
        return sources


def _keys(architecture: Architecture) -> dict[str, str]:
    """THE table: OpenAI's names for every canonical parameter."""
    embedding, pooling = architecture.patches, architecture.pooling
    table = {
        weight_of(embedding.linear): _CONVOLUTION,
        embedding.class_token: "class_embedding",
        embedding.positions: _POSITIONS,
        **_weight_and_bias(embedding.norm, "ln_pre"),
        **_weight_and_bias(pooling.norm, "ln_post"),
        weight_of(Pooling.linear): _PROJECTION,
    }
    for block in architecture.blocks():
        layer = f"transformer.resblocks.{block.index}"
        table |= {
            **_weight_and_bias(block.norm1, f"{layer}.ln_1"),
            weight_of(block.qkv): f"{layer}.attn.in_proj_weight",
            bias_of(block.qkv): f"{layer}.attn.in_proj_bias",
            **_weight_and_bias(block.out, f"{layer}.attn.out_proj"),
            **_weight_and_bias(block.norm2, f"{layer}.ln_2"),
            **_weight_and_bias(block.fc1, f"{layer}.mlp.c_fc"),
            **_weight_and_bias(block.fc2, f"{layer}.mlp.c_proj"),
        }
    return table


def _weight_and_bias(operation: str, theirs: str) -> dict[str, str]:
    return {of(operation): of(theirs) for of in (weight_of, bias_of)}


def _without(prefixes: Iterable[str], key: str) -> str:
    for prefix in prefixes:
        key = key.removeprefix(prefix)
    return key


def _blocks(keys: Iterable[str]) -> set[int]:
    return {int(found[1]) for key in keys if (found := _BLOCK.match(key))}


def activation_of(path: Path, model: Mapping[str, Any], base: Architecture | None) -> Any:
    """Reads the activation of both towers from a `model_cfg` of `path`, or of the base where there is none.

    Raises CheckpointError where nothing says it.
    """
    if not model:
        if base is not None:
            return base.block.activation
        raise CheckpointError(
            f"{path} does not say which activation the weights are of, and nothing else does:"
            ' put {"model_cfg": {"quick_gelu": true}} there for weights of OpenAI\'s,'
            " or false for those that open_clip trained without it"
        )
    quick = model.get("quick_gelu", False)
    if not isinstance(quick, bool):
        raise CheckpointError(f"{path}: quick_gelu must be true or false, found {quick!r}")
    return "quick_gelu" if quick else "gelu"


def _num_attention_heads(description: Description, vision: Mapping[str, Any], width: int) -> int:
    base = description.base
    if not vision and base is not None and base.width == width:
        return base.block.num_attention_heads
    head_width = vision.get("head_width", _HEAD_WIDTH) if vision else _HEAD_WIDTHS.get(width, _HEAD_WIDTH)
    if type(head_width) is not int or head_width < 1 or width % head_width:  # a bool is an int to Python
        raise CheckpointError(
            f"{description.path}: width {width} is not a multiple of head_width {head_width!r}"
        )
    return width // head_width


def object_in(path: Path, parent: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Returns an object of an open_clip_config.json; empty where it is not there. Raises CheckpointError."""
    value = parent.get(name) or {}
    if not isinstance(value, Mapping):
        raise CheckpointError(f"{path}: {name} must be an object")
    return value


def _check_supported(description: Description, vision: Mapping[str, Any]) -> None:
    for name, absent in _ABSENT.items():
        if (found := vision.get(name, absent)) != absent:
            raise CheckpointError(f"{description.path}: {name} must be {absent!r}, found {found!r}")
    if found := vision.get("act_kwargs"):
        raise CheckpointError(f"{description.path}: act_kwargs must be empty, found {found!r}")
    norm = vision.get("norm_kwargs") or {}
    if not isinstance(norm, Mapping) or not norm.keys() <= {"eps"}:
        raise CheckpointError(f"{description.path}: norm_kwargs may hold eps alone, found {norm!r}")
