"""Two texts as one input: which of their tokens are kept, and what a tokenizer puts around and between them.

    marks = PairMarks.of(tokenizer)  # None where it puts nothing between two texts
    first, second = kept_of_pair(len(a), len(b), room)
    words = marks.joined(a[:first], b[:second])

The library's own post-processor would be asked for each pair, but it also joins every piece that was cut of
one text with every piece that was cut of the other: memory and time in proportion to the product of their
lengths.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import tokenizers

Words = NDArray[np.int64]  # [n, 2]: id and type of each token


@dataclass(frozen=True)
class PairMarks:
    """Holds the tokens before, between and behind the two texts, and the type that each of the two has."""

    before: Words
    between: Words
    after: Words
    types: tuple[int, int]

    @property
    def num_tokens(self) -> int:
        """How many of them there are."""
        return len(self.before) + len(self.between) + len(self.after)

    @classmethod
    def of(cls, tokenizer: tokenizers.Tokenizer) -> Self | None:
        """Reads them off a pair of one token each.

        None where the tokenizer has no form for pairs: it then puts nothing between two texts.
        """
        found = _probed(tokenizer)
        if found is None:
            return None
        marked, first, second = found
        words = words_of(marked)
        between = words[first + 1 : second]
        if not len(between):
            return None
        types = (int(words[first, 1]), int(words[second, 1]))
        return cls(words[:first], between, words[second + 1 :], types)

    def joined(self, first: list[int], second: list[int]) -> Words:
        """Returns the words of a pair whose texts have these ids."""
        of_type = zip((first, second), self.types, strict=True)
        a, b = (np.array([(id_, type_) for id_ in ids], np.int64) for ids, type_ in of_type)
        return np.concatenate([self.before, a, self.between, b, self.after])


def words_of(encoding: tokenizers.Encoding) -> Words:
    """Returns what an encoder takes of an encoding."""
    return np.stack([np.array(encoding.ids, np.int64), np.array(encoding.type_ids, np.int64)], axis=1)


def kept_of_pair(first: int, second: int, room: int) -> tuple[int, int]:
    """Returns how many tokens of two texts are kept: the longer one is cut first, as in transformers.

    With room L for texts of n and m tokens, n <= m: (n, L - n) where that leaves the longer one longer, and
    else (L // 2, L - L // 2).
    """
    if first + second <= room:
        return first, second
    shorter = min(first, second, room // 2)
    return (shorter, room - shorter) if first <= second else (room - shorter, shorter)


def _probed(tokenizer: tokenizers.Tokenizer) -> tuple[tokenizers.Encoding, int, int] | None:
    """Returns a pair of one token each, and the places of the two; None where they are not in that order."""
    # With the vocabulary of the tokenizer itself nobody knows of a text that is one token.
    from tokenizers import Tokenizer, models

    probe = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    probe.post_processor = tokenizer.post_processor
    marked = probe.encode("a", "a")
    places = [[at for at, own in enumerate(marked.sequence_ids) if own == part] for part in (0, 1)]
    if [len(own) for own in places] != [1, 1] or places[0] > places[1]:
        return None
    return marked, places[0][0], places[1][0]
