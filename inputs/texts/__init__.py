"""Texts: what can be one, and the tokens that an encoder takes of it."""

from mass_serve.inputs.texts.checking import TextLimits, check_texts
from mass_serve.inputs.texts.tokenizer import TextTokenizer, TokenizerError, Tokens

__all__ = ["TextLimits", "TextTokenizer", "TokenizerError", "Tokens", "check_texts"]
