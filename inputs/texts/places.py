"""Where the tokens of a text stand in it, and which of them go on with a word."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import tokenizers


@dataclass(frozen=True, eq=False)
class Places:
    """Holds where the n tokens of a text stand in it."""

    text: str
    # [n, 2]: the first character of each token and the one behind its last, as Python's str counts them, in
    # Unicode code points; -1 of a token that the text does not have, but that marks its begin or end.
    offsets: NDArray[np.int64]
    continues: NDArray[np.bool_]  # [n]: whether the token goes on with the word of the one before it


@dataclass(frozen=True)
class PlaceFinder:
    """Finds the places of tokens, and their words as transformers finds them."""

    marks_later_parts: bool  # the vocabulary has a mark for later parts of words, such as ##
    unknown: int | None  # the id of what stands for what the vocabulary does not have

    @classmethod
    def of(cls, tokenizer: tokenizers.Tokenizer, content: bytes) -> Self:
        """Reads what a tokenizer, made of that content, has for words."""
        from tokenizers.models import Unigram

        model = tokenizer.model
        marks_later_parts = bool(getattr(model, "continuing_subword_prefix", None))
        if isinstance(model, Unigram):  # of which its file alone tells
            return cls(marks_later_parts, json.loads(content)["model"].get("unk_id"))
        token = getattr(model, "unk_token", None)
        return cls(marks_later_parts, None if token is None else tokenizer.token_to_id(token))

    def places(self, text: str, own: tokenizers.Encoding, marked: tokenizers.Encoding) -> Places:
        """The places of the tokens of a text, with those that mark its begin and end.

        They are those of its `own` tokens: marking trims blanks off places, and has done so before.
        """
        is_own = ~np.array(marked.special_tokens_mask, bool)
        offsets = np.full((len(marked), 2), -1, np.int64)
        offsets[is_own] = own.offsets
        continues = np.zeros(len(marked), bool)
        tokens = zip(own.ids, own.tokens, own.offsets, strict=True)
        continues[is_own] = [
            number != self.unknown and self._continues(text, token, start, stop)
            for number, token, (start, stop) in tokens
        ]
        return Places(text, offsets, continues)

    def _continues(self, text: str, token: str, start: int, stop: int) -> bool:
        """Tells whether a known token at `text[start:stop]` is a later part of a word.

        With a mark for those they are longer than what they stand for; without, no blank is before them.
        """
        if self.marks_later_parts:
            return len(token) != stop - start
        return start > 0 and " " not in text[start - 1 : start + 1]
