"""Texts: what can be one, and the tokens that an encoder takes of it."""

from mass_serve.inputs.texts.checking import TextLimits, check_texts
from mass_serve.inputs.texts.places import Places
from mass_serve.inputs.texts.text import Text, num_characters, parts
from mass_serve.inputs.texts.tokenizer import (
    TextTokenizer,
    TokenizerError,
    Tokens,
    Truncation,
    import_library,
)

__all__ = [
    "Places",
    "Text",
    "TextLimits",
    "TextTokenizer",
    "TokenizerError",
    "Tokens",
    "Truncation",
    "check_texts",
    "import_library",
    "num_characters",
    "parts",
]
