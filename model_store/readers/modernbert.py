"""ModernBERT as Hugging Face writes it (arXiv:2412.13663): config.json, and a table of names.

Configurations of transformers 4 name the two bases of rotary positions and the distance of global blocks by
numbers of their own; those of transformers 5 list each block's kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mass_serve.backbone.architecture import Architecture, WordEmbedding, weight_of
from mass_serve.kernels.activation_names import HeadActivation
from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.format.entries import HiddenSpec
from mass_serve.model_store.readers.family import Description, HiddenNames, Source
from mass_serve.model_store.readers.text_names import (
    names_without,
    pooled_as_told,
    positive_size,
    with_zero_biases,
)
from mass_serve.model_store.readers.transformers_names import (
    ACTIVATIONS,
    activation_of,
    checked_architecture,
    stacked_sources,
    weight_and_bias,
    with_prefix,
)

DEFAULTS: dict[str, Any] = {
    "vocab_size": 50368,
    "hidden_size": 768,
    "intermediate_size": 1152,
    "num_hidden_layers": 22,
    "num_attention_heads": 12,
    "hidden_activation": "gelu",
    "max_position_embeddings": 8192,
    "norm_eps": 1e-5,
    "local_attention": 128,
    "global_attn_every_n_layers": 3,
    "global_rope_theta": 160_000.0,
    "local_rope_theta": 10_000.0,
    "classifier_pooling": "cls",
    "classifier_activation": "gelu",
    "attention_bias": False,
}
_PREFIX, _HEAD = "model.", "head."
_GLOBAL, _LOCAL = "full_attention", "sliding_attention"
CLASSIFIER_POOLINGS = {"cls": "class", "mean": "mean"}
HEAD_ACTIVATIONS: Mapping[str, HeadActivation] = {
    **ACTIVATIONS,
    "silu": "silu",
    "tanh": "tanh",
    "relu": "relu",
}


class ModernBert:
    """The family of ModernBERT encoders."""

    title = "ModernBERT (modernbert)"
    config_file = "config.json"
    classifier = "classifier"

    def hidden_layer(self, description: Description) -> HiddenNames | None:
        """Returns the prediction head: a linear, its activation and a LayerNorm."""
        config = DEFAULTS | dict(description.config)
        found = config["classifier_activation"]
        if not isinstance(found, str) or found not in HEAD_ACTIVATIONS:
            raise CheckpointError(
                f"{description.path}: classifier_activation must be {' or '.join(HEAD_ACTIVATIONS)},"
                f" found {found!r}"
            )
        spec = HiddenSpec(activation=HEAD_ACTIVATIONS[found], norm_eps=config["norm_eps"])
        return HiddenNames(f"{_HEAD}dense", spec, f"{_HEAD}norm")

    def reads(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:  # noqa: ARG002
        """Tells a checkpoint by its `model_type`."""
        return config.get("model_type") == "modernbert"

    def names(self, keys: Iterable[str]) -> dict[str, str | None]:
        """Returns the encoder's parameters by the names of ModernBertModel, None for what is not needed."""
        keys = tuple(keys)
        unused = ("decoder.",) if weight_of(self.classifier) in keys else ("decoder.", _HEAD)
        return names_without(keys, _PREFIX, unused)

    def key(self, name: str, description: Description) -> str:  # noqa: ARG002
        """Returns the name in a file of transformers: `names` undone."""
        return with_prefix(name, _PREFIX, (self.classifier, _HEAD))

    def architecture(self, description: Description) -> Architecture:
        """Reads the encoder's sizes from config.json.

        Raises CheckpointError for sizes that cannot be, and for positions or kinds of block that are not
        served.
        """
        path, config = description.path, DEFAULTS | dict(description.config)
        return checked_architecture(
            path,
            {
                "embedding": {
                    "kind": "words",
                    "vocabulary": config["vocab_size"],
                    "max_tokens": config["max_position_embeddings"],
                    "positions": False,
                    "types": 1,
                },
                "block": {
                    "kind": "pre_norm",
                    "width": config["hidden_size"],
                    "num_attention_heads": config["num_attention_heads"],
                    "mlp_width": config["intermediate_size"],
                    "activation": activation_of(path, {"hidden_act": config["hidden_activation"]}),
                    "gated": True,
                    "qkv_bias": bool(config["attention_bias"]),
                    "layer_norm_eps": config["norm_eps"],
                    "first_norm": False,
                    "rotary": _rotary(description, config),
                },
                "depth": config["num_hidden_layers"],
                "pooling": {"kind": _pooled(description, config), "projection_dim": None},
            },
        )

    def sources(self, architecture: Architecture, description: Description) -> dict[str, Source]:
        """Returns the place of every canonical parameter; biases that are not there are zeros."""
        return with_zero_biases(self.all_sources(architecture), architecture, description)

    def all_sources(self, architecture: Architecture) -> dict[str, Source]:
        """Returns the place of every canonical parameter in a checkpoint that has each of them."""
        return stacked_sources(architecture, _table(architecture))


def _pooled(description: Description, config: Mapping[str, Any]) -> str:
    if told := pooled_as_told(description):
        return told
    found = config["classifier_pooling"]
    if not isinstance(found, str) or found not in CLASSIFIER_POOLINGS:
        raise CheckpointError(
            f"{description.path}: classifier_pooling must be {' or '.join(CLASSIFIER_POOLINGS)},"
            f" found {found!r}"
        )
    return CLASSIFIER_POOLINGS[found]


def _rotary(description: Description, config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "global_theta": _theta(description, config, _GLOBAL, "global_rope_theta"),
        "local_theta": _theta(description, config, _LOCAL, "local_rope_theta"),
        "global_every": _global_every(description, config),
        "reach": positive_size(description.path, config, "local_attention") // 2,
    }


def _theta(description: Description, config: Mapping[str, Any], kind: str, older: str) -> Any:
    """The base of the rotations in blocks of a kind. Raises CheckpointError where they are scaled besides."""
    by_kind = config.get("rope_parameters")
    if by_kind is None:
        if config.get("rope_scaling") is not None:
            raise CheckpointError(f"{description.path}: rope_scaling is not served")
        return _number(description, config, older)
    own = by_kind.get(kind) if isinstance(by_kind, dict) else None
    if not isinstance(own, dict) or own.get("rope_type", "default") != "default":
        raise CheckpointError(
            f"{description.path}: rope_parameters.{kind} must be of rope_type 'default', found {own!r}"
        )
    return _number(description, {older: config[older], **own}, "rope_theta" if "rope_theta" in own else older)


def _number(description: Description, config: Mapping[str, Any], name: str) -> float:
    found = config[name]
    if not isinstance(found, int | float) or isinstance(found, bool):
        raise CheckpointError(f"{description.path}: {name} must be a number, found {found!r}")
    return float(found)


def _global_every(description: Description, config: Mapping[str, Any]) -> int:
    """How far apart global blocks are. Raises CheckpointError where they do not alternate evenly."""
    path, kinds = description.path, config.get("layer_types")
    if kinds is None:
        return positive_size(path, config, "global_attn_every_n_layers")
    depth = positive_size(path, config, "num_hidden_layers")
    for every in range(1, depth + 1):
        if kinds == [_LOCAL if index % every else _GLOBAL for index in range(depth)]:
            return every
    raise CheckpointError(
        f"{path}: layer_types must be {_GLOBAL} in every n-th block from the first on, and else {_LOCAL}"
    )


def _table(architecture: Architecture) -> dict[str, tuple[str, ...]]:
    """THE table: ModernBERT's names for every canonical parameter."""
    embedding = architecture.embedding
    assert isinstance(embedding, WordEmbedding)
    table: dict[str, tuple[str, ...]] = {
        weight_of(embedding.words): ("embeddings.tok_embeddings.weight",),
        **weight_and_bias(embedding.norm, "embeddings.norm"),
        **weight_and_bias(architecture.pooling.norm, "final_norm"),
    }
    for block in architecture.blocks():
        layer = f"layers.{block.index}"
        table |= {
            **weight_and_bias(block.norm1, f"{layer}.attn_norm"),
            **weight_and_bias(block.qkv, f"{layer}.attn.Wqkv"),
            **weight_and_bias(block.out, f"{layer}.attn.Wo"),
            **weight_and_bias(block.norm2, f"{layer}.mlp_norm"),
            **weight_and_bias(block.fc1, f"{layer}.mlp.Wi"),
            **weight_and_bias(block.fc2, f"{layer}.mlp.Wo"),
        }
    return table
