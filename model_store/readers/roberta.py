"""RoBERTa and XLM-RoBERTa as Hugging Face writes them: encoders of BERT's names and kind of block.

Of a text's tokens the first has position `pad_token_id + 1`; the rows before are of no token.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mass_serve.backbone.architecture import Architecture
from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.format.entries import HiddenSpec
from mass_serve.model_store.readers.bert import DEFAULTS as BERT_DEFAULTS
from mass_serve.model_store.readers.bert import bert_sources, pooling_of, refuse_unserved
from mass_serve.model_store.readers.family import Description, HiddenNames, Source
from mass_serve.model_store.readers.text_names import names_without, positive_size, post_norm_block
from mass_serve.model_store.readers.transformers_names import checked_architecture, with_prefix

DEFAULTS: dict[str, Any] = {**BERT_DEFAULTS, "vocab_size": 50265, "pad_token_id": 1}
# Of a bare model the pooler, and the head of pre-training.
_NOT_NEEDED = ("lm_head.", "pooler.")
_PREFIX = "roberta."
_CLASSIFIER = "classifier."
_OF_TOKENS = {f"{_CLASSIFIER}{part}": f"{_CLASSIFIER}out_proj.{part}" for part in ("weight", "bias")}


class Roberta:
    """The family of RoBERTa and XLM-RoBERTa encoders."""

    title = "RoBERTa and XLM-RoBERTa (roberta, xlm-roberta)"
    config_file = "config.json"
    classifier = "classifier.out_proj"

    def hidden_layer(self, description: Description) -> HiddenNames | None:
        """Returns the classifier's first layer, with tanh behind it; none of a classifier of tokens."""
        spec = HiddenSpec(activation="tanh", norm_eps=None)
        return None if description.each_token else HiddenNames(f"{_CLASSIFIER}dense", spec)

    def reads(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:  # noqa: ARG002
        """Tells a checkpoint by its `model_type`."""
        return config.get("model_type") in ("roberta", "xlm-roberta")

    def names(self, keys: Iterable[str]) -> dict[str, str | None]:
        """Returns the encoder's parameters by the names of RobertaModel, None for what is not needed.

        The linear of a classifier of tokens, which has no layer before it, gets the name of the other's last.
        """
        names = names_without(keys, _PREFIX, _NOT_NEEDED)
        return {key: _OF_TOKENS.get(name, name) if name else None for key, name in names.items()}

    def key(self, name: str, description: Description) -> str:
        """Returns the name in a file of transformers: `names` undone."""
        if description.each_token:
            name = next((key for key, own in _OF_TOKENS.items() if own == name), name)
        return with_prefix(name, _PREFIX, (_CLASSIFIER,))

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
                    "max_tokens": positive_size(path, config, "max_position_embeddings")
                    - _start(description),
                    "positions": True,
                    # The tokenizers of these models give one type, whatever the table has.
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
        num_types = positive_size(description.path, config, "type_vocab_size")
        return bert_sources(architecture, num_types, _start(description))


def _start(description: Description) -> int:
    """The position of a text's first token."""
    padding = (DEFAULTS | dict(description.config))["pad_token_id"]
    if type(padding) is not int or padding < 0:  # a bool is an int to Python
        raise CheckpointError(f"{description.path}: pad_token_id must be a whole number, found {padding!r}")
    return padding_before(padding)


def padding_before(padding: int) -> int:
    """How many positions are of no token, with padding of that id."""
    return padding + 1
