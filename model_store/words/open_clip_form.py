"""The text tower of OpenAI's and open_clip's state dicts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mass_serve.backbone.architecture import BlockNames, bias_of, weight_of
from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.readers.open_clip_vision import CONFIG_FILE, activation_of, object_in
from mass_serve.model_store.words.form import LOGIT_SCALE, Settings, Table, weight_and_bias
from mass_serve.model_store.words.text_tower import FINAL_NORM, POSITIONS, PROJECTION, TOKENS

_PREFIXES = ("module.", "model.", "text.")  # the last in models whose text tower is an object of its own
_HEADS = 8  # where a text_cfg leaves them out
_HEAD_WIDTH = 64  # where there is no text_cfg
# Parts that our tower does not have, by what text_cfg says where a model has none of them either.
_ABSENT: dict[str, Any] = {
    "hf_model_name": None,
    "tokenizer_kwargs": None,
    "ls_init_value": None,
    "embed_cls": False,
    "no_causal_mask": False,
    "final_ln_after_pool": False,
    "pool_type": "argmax",
    "proj_type": "linear",
    "proj_bias": False,
    "act_kwargs": None,
    "block_type": None,
}


class OpenClipText:
    """The names of OpenAI's release."""

    config_file = CONFIG_FILE
    block_pattern = re.compile(r"transformer\.resblocks\.(\d{1,4})\.")
    transposed = frozenset({PROJECTION})

    def names(self, keys: Iterable[str]) -> dict[str, str | None]:
        """Strips what stands before the names; None for the vision tower and for what is no weight."""
        return {key: _name(key) for key in keys}

    def check(self, path: Path, config: Mapping[str, Any]) -> None:
        """Refuses a `text_cfg` with parts that our tower does not have."""
        text = _text_config(path, config)
        for name, absent in _ABSENT.items():
            if (found := text.get(name, absent)) != absent:
                raise CheckpointError(f"{path}: text_cfg: {name} must be {absent!r}, found {found!r}")
        norm = object_in(path, text, "norm_kwargs")
        if not norm.keys() <= {"eps"}:
            raise CheckpointError(f"{path}: text_cfg: norm_kwargs may hold eps alone, found {norm!r}")

    def table(self, depth: int) -> Table:
        """THE table: OpenAI's names for every parameter; here too qkv is one matrix."""
        table: Table = {
            TOKENS: ("token_embedding.weight",),
            POSITIONS: ("positional_embedding",),
            **weight_and_bias(FINAL_NORM, "ln_final"),
            PROJECTION: ("text_projection",),
        }
        for block in map(BlockNames, range(depth)):
            layer = f"transformer.resblocks.{block.index}"
            table |= {
                **weight_and_bias(block.norm1, f"{layer}.ln_1"),
                weight_of(block.qkv): (f"{layer}.attn.in_proj_weight",),
                bias_of(block.qkv): (f"{layer}.attn.in_proj_bias",),
                **weight_and_bias(block.out, f"{layer}.attn.out_proj"),
                **weight_and_bias(block.norm2, f"{layer}.ln_2"),
                **weight_and_bias(block.fc1, f"{layer}.mlp.c_fc"),
                **weight_and_bias(block.fc2, f"{layer}.mlp.c_proj"),
            }
        return table

    def settings(self, path: Path, config: Mapping[str, Any], sizes: Mapping[str, int]) -> Settings:
        """Reads open_clip_config.json, where there is one."""
        text = _text_config(path, config)
        return Settings(
            num_attention_heads=text.get("heads", _HEADS if text else max(1, sizes["width"] // _HEAD_WIDTH)),
            activation=activation_of(path, object_in(path, config, "model_cfg"), None),
            layer_norm_eps=object_in(path, text, "norm_kwargs").get("eps", 1e-5),
            end_token=None,
        )


def _text_config(path: Path, config: Mapping[str, Any]) -> Mapping[str, Any]:
    return object_in(path, object_in(path, config, "model_cfg"), "text_cfg")


def _name(key: str) -> str | None:
    for prefix in _PREFIXES:
        key = key.removeprefix(prefix)
    is_of_the_tower = key.startswith(
        ("token_embedding.", "positional_embedding", "transformer.", "ln_final.", "text_projection")
    )
    return key if is_of_the_tower or key == LOGIT_SCALE else None
