"""Whether a model is told which text of a pair each token is of: the types that a tokenizer gives them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.readers.vocabularies import CONFIG_FILE

if TYPE_CHECKING:
    import tokenizers

_INPUTS, _TYPES = "model_input_names", "token_type_ids"


def with_types_as_told(
    folder: Path, tokenizer: tokenizers.Tokenizer, settings: Mapping[str, Any]
) -> tokenizers.Tokenizer:
    """The tokenizer, or where the settings beside it leave types out of a model's inputs, one without any.

    transformers then gives the model none, which takes all tokens to be of type 0. Raises CheckpointError
    for settings that are no names.
    """
    inputs = settings.get(_INPUTS)
    if inputs is None:
        return tokenizer
    if not isinstance(inputs, list) or not all(isinstance(name, str) for name in inputs):
        raise CheckpointError(
            f"{folder / CONFIG_FILE}: {_INPUTS} must be a list of names, found {inputs!r:.80}"
        )
    return tokenizer if _TYPES in inputs else _of_one_type(tokenizer)


def _of_one_type(tokenizer: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    from tokenizers import Tokenizer

    content = json.loads(tokenizer.to_str())
    if content["post_processor"] is None:
        return tokenizer
    untyped: tokenizers.Tokenizer = Tokenizer.from_str(
        json.dumps(content | {"post_processor": _untyped(content["post_processor"])})
    )
    return untyped


def _untyped(processor: dict[str, Any]) -> dict[str, Any]:
    """A post-processor as a tokenizer.json has it, whose tokens are all of type 0."""
    match processor["type"]:
        case "Sequence":
            return processor | {"processors": [_untyped(part) for part in processor["processors"]]}
        case "TemplateProcessing":
            return processor | {form: [_piece(one) for one in processor[form]] for form in ("single", "pair")}
        case "BertProcessing":
            return _berts(processor["cls"], processor["sep"])
        case _:  # RoBERTa's gives no other type
            return processor


def _piece(piece: dict[str, Any]) -> dict[str, Any]:
    return {kind: own | {"type_id": 0} for kind, own in piece.items()}


def _berts(beginning: tuple[str, int], separator: tuple[str, int]) -> dict[str, Any]:
    """BERT's marks around a text and between two, as a template."""
    first, last = ({"SpecialToken": {"id": token, "type_id": 0}} for token, _ in (beginning, separator))
    a, b = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    return {
        "type": "TemplateProcessing",
        "single": [first, a, last],
        "pair": [first, a, last, b, last],
        "special_tokens": {
            token: {"id": token, "ids": [id_], "tokens": [token]} for token, id_ in (beginning, separator)
        },
    }
