"""DistilBERT as Hugging Face writes it: half of BERT's blocks, without types of tokens, under other names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mass_serve.backbone.architecture import Architecture, WordEmbedding, weight_of
from mass_serve.model_store.format.entries import HiddenSpec
from mass_serve.model_store.readers.bert import POSITIONS, WORDS, pooling_of
from mass_serve.model_store.readers.family import Description, HiddenNames, Source
from mass_serve.model_store.readers.text_names import names_without, post_norm_block
from mass_serve.model_store.readers.transformers_names import (
    checked_architecture,
    stacked_sources,
    weight_and_bias,
    with_prefix,
)

DEFAULTS: dict[str, Any] = {
    "vocab_size": 30522,
    "dim": 768,
    "n_layers": 6,
    "n_heads": 12,
    "hidden_dim": 3072,
    "activation": "gelu",
    "max_position_embeddings": 512,
}
# BERT's words for the same.
AS_BERT = {
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
    "hidden_act": "activation",
}
_PREFIX, _HIDDEN = "distilbert.", "pre_classifier"
_LAYER_NORM_EPS = 1e-12  # of every DistilBERT: its configuration has none
_NOT_NEEDED = ("vocab_",)  # the head of pre-training


class DistilBert:
    """The family of DistilBERT encoders."""

    title = "DistilBERT (distilbert)"
    config_file = "config.json"
    classifier = "classifier"

    def hidden_layer(self, description: Description) -> HiddenNames | None:
        """Returns the layer before the classifier, with a ReLU behind it; none of a classifier of tokens."""
        spec = HiddenSpec(activation="relu", norm_eps=None)
        return None if description.each_token else HiddenNames(_HIDDEN, spec)

    def reads(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:  # noqa: ARG002
        """Tells a checkpoint by its `model_type`."""
        return config.get("model_type") == "distilbert"

    def names(self, keys: Iterable[str]) -> dict[str, str | None]:
        """Returns the encoder's parameters by the names of DistilBertModel, None for what is not needed."""
        return names_without(keys, _PREFIX, _NOT_NEEDED)

    def key(self, name: str, description: Description) -> str:  # noqa: ARG002
        """Returns the name in a file of transformers: `names` undone."""
        return with_prefix(name, _PREFIX, (self.classifier, _HIDDEN))

    def architecture(self, description: Description) -> Architecture:
        """Reads the encoder's sizes from config.json. Raises CheckpointError for sizes that cannot be."""
        path, config = description.path, DEFAULTS | dict(description.config)
        as_bert = {name: config[own] for name, own in AS_BERT.items()}
        return checked_architecture(
            path,
            {
                "embedding": {
                    "kind": "words",
                    "vocabulary": config["vocab_size"],
                    "max_tokens": config["max_position_embeddings"],
                    "positions": True,
                    "types": 1,
                },
                "block": post_norm_block(path, {**as_bert, "layer_norm_eps": _LAYER_NORM_EPS}),
                "depth": as_bert["num_hidden_layers"],
                "pooling": pooling_of(description),
            },
        )

    def sources(self, architecture: Architecture, description: Description) -> dict[str, Source]:  # noqa: ARG002
        """Returns the place of every canonical parameter."""
        return stacked_sources(architecture, _table(architecture))


def _table(architecture: Architecture) -> dict[str, tuple[str, ...]]:
    """THE table: DistilBERT's names for every canonical parameter."""
    embedding = architecture.embedding
    assert isinstance(embedding, WordEmbedding)
    table: dict[str, tuple[str, ...]] = {
        weight_of(embedding.words): (WORDS,),
        embedding.positions: (POSITIONS,),
        **weight_and_bias(embedding.norm, "embeddings.LayerNorm"),
    }
    for block in architecture.blocks():
        layer = f"transformer.layer.{block.index}"
        table |= {
            **weight_and_bias(block.qkv, *(f"{layer}.attention.{part}_lin" for part in ("q", "k", "v"))),
            **weight_and_bias(block.out, f"{layer}.attention.out_lin"),
            **weight_and_bias(block.norm1, f"{layer}.sa_layer_norm"),
            **weight_and_bias(block.fc1, f"{layer}.ffn.lin1"),
            **weight_and_bias(block.fc2, f"{layer}.ffn.lin2"),
            **weight_and_bias(block.norm2, f"{layer}.output_layer_norm"),
        }
    return table
