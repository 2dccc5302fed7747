"""BERT as Hugging Face writes it, and MiniLM, which is BERT of other sizes.

A classifier takes BERT's tanh pooler of the class token, which is a layer of the classifier here: it needs no
base with a pooler, which one that was trained on masked words alone has not. One of tokens has no pooler.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mass_serve.backbone.architecture import Architecture, WordEmbedding, weight_of
from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.format.entries import HiddenSpec
from mass_serve.model_store.readers.changes import FurtherTypes, TextPositions
from mass_serve.model_store.readers.family import Description, HiddenNames, Source
from mass_serve.model_store.readers.text_names import (
    names_without,
    pooled_as_told,
    positive_size,
    post_norm_block,
)
from mass_serve.model_store.readers.transformers_names import (
    checked_architecture,
    stacked_sources,
    weight_and_bias,
    with_prefix,
)

DEFAULTS: dict[str, Any] = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "position_embedding_type": "absolute",
    "is_decoder": False,
}
_PREFIX = "bert."
WORDS = "embeddings.word_embeddings.weight"
POSITIONS = "embeddings.position_embeddings.weight"
TYPES = "embeddings.token_type_embeddings.weight"
# Heads of pre-training.
_NOT_NEEDED = ("cls.",)
_POOLER = "pooler."


class Bert:
    """The family of BERT encoders."""

    title = "BERT and MiniLM (bert)"
    config_file = "config.json"
    classifier = "classifier"

    def hidden_layer(self, description: Description) -> HiddenNames | None:
        """Returns the tanh pooler; none of a classifier of tokens."""
        spec = HiddenSpec(activation="tanh", norm_eps=None)
        return None if description.each_token else HiddenNames("pooler.dense", spec)

    def reads(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:  # noqa: ARG002
        """Tells a checkpoint by its `model_type`."""
        return config.get("model_type") == "bert"

    def names(self, keys: Iterable[str]) -> dict[str, str | None]:
        """Returns the encoder's parameters by the names of BertModel, None for heads of pre-training.

        A pooler without a classifier is not needed.
        """
        keys = tuple(keys)
        classifies = weight_of(self.classifier) in keys
        return names_without(keys, _PREFIX, _NOT_NEEDED if classifies else (*_NOT_NEEDED, _POOLER))

    def key(self, name: str, description: Description) -> str:  # noqa: ARG002
        """Returns the name in a file of transformers: `names` undone."""
        return with_prefix(name, _PREFIX, (self.classifier,))

    def architecture(self, description: Description) -> Architecture:
        """Reads the encoder's sizes from config.json.

        Raises CheckpointError for sizes that cannot be, and for a decoder or relative positions.
        """
        path, config = description.path, DEFAULTS | dict(description.config)
        refuse_unserved(description, config)
        return checked_architecture(
            path,
            {
                "embedding": {
                    "kind": "words",
                    "vocabulary": config["vocab_size"],
                    "max_tokens": config["max_position_embeddings"],
                    "positions": True,
                    "types": config["type_vocab_size"],
                },
                "block": post_norm_block(path, config),
                "depth": config["num_hidden_layers"],
                "pooling": pooling_of(description),
            },
        )

    def sources(self, architecture: Architecture, description: Description) -> dict[str, Source]:
        """Returns the place of every canonical parameter."""
        config = DEFAULTS | dict(description.config)
        return bert_sources(architecture, positive_size(description.path, config, "type_vocab_size"), start=0)


def refuse_unserved(description: Description, config: Mapping[str, Any]) -> None:
    """Raises CheckpointError for a decoder, and for positions that are not learned row by row."""
    if config["position_embedding_type"] not in (None, "absolute"):
        raise CheckpointError(
            f"{description.path}: position_embedding_type must be 'absolute', "
            f"found {config['position_embedding_type']!r}"
        )
    if config["is_decoder"]:
        raise CheckpointError(f"{description.path}: is_decoder is true, and a store has encoders alone")


def pooling_of(description: Description) -> dict[str, Any]:
    """The pooling of a post-norm encoder, whose tokens left a LayerNorm: by default the class token."""
    return {"kind": f"{pooled_as_told(description) or 'class'}_without_norm", "projection_dim": None}


def bert_sources(architecture: Architecture, num_types: int, start: int) -> dict[str, Source]:
    """The place of every parameter of BERT and of what is built alike; `start` positions are of no token."""
    sources, width = stacked_sources(architecture, bert_table(architecture)), architecture.width
    embedding = architecture.embedding
    assert isinstance(embedding, WordEmbedding)
    change = TextPositions(start, TYPES, num_types, width)
    sources[embedding.positions] = Source((POSITIONS,), (start + embedding.max_tokens, width), change=change)
    if embedding.num_types > 1:
        sources[embedding.types] = Source((TYPES,), (num_types, width), change=FurtherTypes())
    return sources


def bert_table(architecture: Architecture) -> dict[str, tuple[str, ...]]:
    """THE table: BERT's names for every canonical parameter but positions and types."""
    embedding = architecture.embedding
    assert isinstance(embedding, WordEmbedding)
    table: dict[str, tuple[str, ...]] = {
        weight_of(embedding.words): (WORDS,),
        **weight_and_bias(embedding.norm, "embeddings.LayerNorm"),
    }
    for block in architecture.blocks():
        layer = f"encoder.layer.{block.index}"
        attention = (f"{layer}.attention.self.{part}" for part in ("query", "key", "value"))
        table |= {
            **weight_and_bias(block.qkv, *attention),
            **weight_and_bias(block.out, f"{layer}.attention.output.dense"),
            **weight_and_bias(block.norm1, f"{layer}.attention.output.LayerNorm"),
            **weight_and_bias(block.fc1, f"{layer}.intermediate.dense"),
            **weight_and_bias(block.fc2, f"{layer}.output.dense"),
            **weight_and_bias(block.norm2, f"{layer}.output.LayerNorm"),
        }
    return table
