"""The text tower of Hugging Face's `CLIPModel` and `CLIPTextModelWithProjection`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mass_serve.backbone.architecture import BlockNames
from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.words.form import LOGIT_SCALE, Settings, Table, weight_and_bias
from mass_serve.model_store.words.text_tower import FINAL_NORM, POSITIONS, PROJECTION, TOKENS

_TOWER = "text_model."
_PROJECTION = "text_projection.weight"
_MODEL_TYPES = ("clip", "clip_text_model")
# Configurations on disk may leave out whatever equals these.
_DEFAULTS: dict[str, Any] = {
    "vocab_size": 49408,
    "max_position_embeddings": 77,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "projection_dim": 512,
    "num_attention_heads": 8,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "eos_token_id": 49407,
}
# What the configuration says of the shapes, by what we call it.
_SIZES = {
    "vocabulary": "vocab_size",
    "context_length": "max_position_embeddings",
    "width": "hidden_size",
    "mlp_width": "intermediate_size",
    "depth": "num_hidden_layers",
    "projection_dim": "projection_dim",
}
# Configurations from before transformers 4.31 have this number, which no text has; the end is the largest id.
_LEGACY_END_TOKEN = 2


class HuggingFaceText:
    """The names of transformers."""

    config_file = "config.json"
    block_pattern = re.compile(r"text_model\.encoder\.layers\.(\d{1,4})\.")
    transposed: frozenset[str] = frozenset()

    def names(self, keys: Iterable[str]) -> dict[str, str | None]:
        """Keeps the names as they are; None for the vision tower and for buffers."""
        return {key: key if _is_of_the_tower(key) else None for key in keys}

    def check(self, path: Path, config: Mapping[str, Any]) -> None:
        """Tells a CLIP by its `model_type`: other towers have these names, too."""
        if (found := config.get("model_type")) not in _MODEL_TYPES:
            expected = " or ".join(_MODEL_TYPES)
            raise CheckpointError(
                f"{path}: model_type must be {expected} where a head is made of words, found {found!r}"
            )

    def table(self, depth: int) -> Table:
        """THE table: transformers' names for every parameter; the fused qkv is q, k and v there."""
        table: Table = {
            TOKENS: (f"{_TOWER}embeddings.token_embedding.weight",),
            POSITIONS: (f"{_TOWER}embeddings.position_embedding.weight",),
            **weight_and_bias(FINAL_NORM, f"{_TOWER}final_layer_norm"),
            PROJECTION: (_PROJECTION,),
        }
        for block in map(BlockNames, range(depth)):
            layer = f"{_TOWER}encoder.layers.{block.index}"
            table |= {
                **weight_and_bias(block.norm1, f"{layer}.layer_norm1"),
                **weight_and_bias(block.qkv, *(f"{layer}.self_attn.{part}_proj" for part in "qkv")),
                **weight_and_bias(block.out, f"{layer}.self_attn.out_proj"),
                **weight_and_bias(block.norm2, f"{layer}.layer_norm2"),
                **weight_and_bias(block.fc1, f"{layer}.mlp.fc1"),
                **weight_and_bias(block.fc2, f"{layer}.mlp.fc2"),
            }
        return table

    def settings(self, path: Path, config: Mapping[str, Any], sizes: Mapping[str, int]) -> Settings:
        """Reads config.json, of a full CLIPModel its `text_config`."""
        text = _DEFAULTS | _text_config(path, config)
        for ours, theirs in _SIZES.items():
            if text[theirs] != sizes[ours]:
                raise CheckpointError(f"{path}: {theirs} is {text[theirs]!r}, the weights have {sizes[ours]}")
        end = text["eos_token_id"]
        return Settings(
            num_attention_heads=text["num_attention_heads"],
            activation=text["hidden_act"],
            layer_norm_eps=text["layer_norm_eps"],
            end_token=None if end == _LEGACY_END_TOKEN else end,
        )


def _is_of_the_tower(key: str) -> bool:
    if key.endswith(".position_ids"):
        return False
    return key.startswith((_TOWER, "text_projection.")) or key == LOGIT_SCALE


def _text_config(path: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    if config["model_type"] == "clip_text_model":
        return dict(config)
    text = config.get("text_config") or {}
    if not isinstance(text, dict):
        raise CheckpointError(f"{path}: text_config must be an object")
    # The projection belongs to the pair of towers; its width in text_config is a leftover.
    return text | {"projection_dim": config.get("projection_dim", _DEFAULTS["projection_dim"])}
