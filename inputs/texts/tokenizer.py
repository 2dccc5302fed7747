"""From a text to the tokens that an encoder takes, by the tokenizer that its store brings along.

    tokenizer = TextTokenizer(content, max_tokens=512)  # content: of tokenizer.json
    tokens = tokenizer.tokens("what a day")
    tokens.words, tokens.cut  # [5, 2], 0
    tokenizer.tokens(("it rains", "it is wet"))  # of a pair, as the model was trained on pairs
    tokenizer.tokens("what a day", placed=True).places.offsets[1]  # [0, 4]

The library `tokenizers` does it, as for transformers, and nothing else: no network, and no file but the one
that the store has checked. Other threads run meanwhile. It takes time in proportion to the text where
`is_bounded`; a tokenizer with regular expressions of its own may take for ever.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from mass_serve.inputs.errors import EmptyInputError, InputTooLargeError, NoPairsError
from mass_serve.inputs.texts.bounded import is_bounded
from mass_serve.inputs.texts.pairs import PairMarks, kept_of_pair, words_of
from mass_serve.inputs.texts.places import PlaceFinder, Places
from mass_serve.inputs.texts.text import Text, num_characters

if TYPE_CHECKING:
    import tokenizers


# A word and a character that few vocabularies have: what stands for the unknown is one more token.
PROBES = ("a", "\U0001f9ff")

# Which end of a text with too many tokens is cut off; none: the text is refused.
Truncation = Literal["right", "left", "none"]


class TokenizerError(Exception):
    """A tokenizer cannot be used; the text is one sentence that says why."""


@dataclass(frozen=True)
class Tokens:
    """Holds what an encoder takes of a text."""

    words: NDArray[np.int64]  # [n, 2]: id and type of each token, those that mark begin and end among them
    cut: int  # how many tokens the text had beyond those; 0: the encoder reads all of it
    places: Places | None = None  # where that was asked for


class TextTokenizer:
    """A tokenizer of a store. Threads may use it at once."""

    def __init__(self, content: bytes, max_tokens: int, truncation: Truncation = "right") -> None:
        """Reads the content of a tokenizer.json; an encoder takes `max_tokens` of a text.

        Of a longer one `truncation` is done where a caller asks for no other.

        Raises TokenizerError for content that the library does not read, for one that leaves tokens out by
        chance, and for so few tokens that a text would have none beside the marks around it.
        """
        self.content = content
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.max_tokens = max_tokens
        self.truncation = truncation
        self._tokenizer = _loaded(content)
        # What was saved with them would pad a text, or cut it without a word.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        if getattr(self._tokenizer.model, "dropout", None):
            raise TokenizerError("the tokenizer leaves merges out by chance (dropout); save it without that")
        self._room = max_tokens - self._tokenizer.num_special_tokens_to_add(is_pair=False)
        if self._room < 1:
            raise TokenizerError(f"of {max_tokens} tokens none is left for the text itself")
        self._pair_marks = PairMarks.of(self._tokenizer)
        self.is_bounded = is_bounded(self._tokenizer)  # every text takes its share of time and memory alone

    @property
    def vocabulary(self) -> Mapping[str, int]:
        """Every token and its id."""
        found: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        return found

    def guessed_tokens(self, text: Text) -> int:
        """Returns how many tokens a text may have, before it is known: `min(max_tokens, characters + marks)`.

        That is seldom too few: tokens are rarely shorter than a character.
        """
        return min(self.max_tokens, num_characters([text]) + self.max_tokens - self._room)

    @property
    def takes_pairs(self) -> bool:
        """Tells whether two texts can be one input."""
        return self._pair_marks is not None and self.max_tokens > 1 + self._pair_marks.num_tokens

    def check_fits(self, vocabulary: int, num_types: int) -> None:
        """Raises TokenizerError where tokens have ids or types beyond those of an encoder, or make none.

        An encoder of one type does not look at types.
        """
        largest = max(self.vocabulary.values(), default=0)
        if largest >= vocabulary:
            raise TokenizerError(f"it has ids up to {largest}, and the encoder {vocabulary} tokens")
        texts: list[Text] = [*PROBES, *([(PROBES[0], PROBES[0])] if self.takes_pairs else [])]
        for text in texts:
            words = self._probed(text)
            if (words[:, 0] >= vocabulary).any() or (num_types > 1 and (words[:, 1] >= num_types).any()):
                raise TokenizerError(
                    f"it makes {words.tolist()} of {text!r}, ids and types, and the encoder has {vocabulary}"
                    f" tokens of {num_types} types"
                )

    def _probed(self, text: Text) -> NDArray[np.int64]:
        try:
            return self.tokens(text).words
        except EmptyInputError:  # as where what is unknown is left out
            return np.zeros((0, 2), np.int64)
        except Exception as error:  # the library documents none of its own
            raise TokenizerError(f"it makes no tokens of {text!r}: {error}") from error

    def tokens(self, text: Text, truncation: Truncation | None = None, *, placed: bool = False) -> Tokens:
        """The tokens of a text that `check_texts` has let pass, as many as the encoder takes.

        `truncation` may ask for the first ones, the last, or all; None: as the tokenizer was made. Of a pair
        the longer text is cut first. Where the tokens of a single text stand in it is known if they are to be
        `placed`, which may take twice as long.

        Raises EmptyInputError for a text of which nothing is left: blanks, or marks that change no word;
        NoPairsError for a pair that is to be placed, or that the tokenizer has no form for;
        InputTooLargeError for more tokens than the encoder takes, where none may be cut; TokenizerError where
        the library fails.
        """
        truncation = truncation or self.truncation
        if isinstance(text, str):
            return self._of_one(text, truncation, placed)
        if placed:
            raise NoPairsError(
                "The text is a pair, and a task that classifies tokens takes none; send single texts."
            )
        return self._of_pair(*text, truncation)

    def _of_one(self, text: str, truncation: Truncation, placed: bool) -> Tokens:
        own = self._encoded(text, placed)
        length = len(own)
        if not length:
            raise EmptyInputError("The text has no word in it that the tokenizer knows of; send one.")
        cut = self._cut(length, self._room, truncation)
        if cut:
            own.truncate(self._room, direction="left" if truncation == "left" else "right")
        marked = self._tokenizer.post_process(own, None, True)
        return Tokens(words_of(marked), cut, self._finder.places(text, own, marked) if placed else None)

    @cached_property
    def _finder(self) -> PlaceFinder:
        return PlaceFinder.of(self._tokenizer, self.content)

    def _of_pair(self, first: str, second: str, truncation: Truncation) -> Tokens:
        if self._pair_marks is None or not self.takes_pairs:
            raise NoPairsError(
                "The text is a pair, and this store's tokenizer does not make one input of two texts; send"
                " single texts."
            )
        ids = (self._encoded(first).ids, self._encoded(second).ids)
        lengths = (len(ids[0]), len(ids[1]))
        if not all(lengths):
            which = "second" if lengths[0] else "first"
            raise EmptyInputError(
                f"The {which} text of the pair has no word in it that the tokenizer knows of; send one."
            )
        room = self.max_tokens - self._pair_marks.num_tokens
        cut = self._cut(sum(lengths), room, truncation)
        kept = zip(ids, kept_of_pair(*lengths, room), strict=True)
        parts = [own[len(own) - n :] if truncation == "left" else own[:n] for own, n in kept]
        return Tokens(self._pair_marks.joined(*parts), cut)

    def _cut(self, length: int, room: int, truncation: Truncation) -> int:
        """Returns how many tokens are too many. Raises InputTooLargeError where none may be cut."""
        cut = max(0, length - room)
        if cut and truncation == "none":
            raise InputTooLargeError(
                f"The text has {length + self.max_tokens - room} tokens, and the encoder takes"
                f" {self.max_tokens}; send a shorter one, or let it be truncated."
            )
        return cut

    def _encoded(self, text: str, placed: bool = False) -> tokenizers.Encoding:
        # The batched forms alone let other threads run meanwhile.
        encode = self._tokenizer.encode_batch if placed else self._tokenizer.encode_batch_fast
        try:
            (own,) = encode([text], add_special_tokens=False)
        except BaseException as error:
            # A panic of the library, such as of a regular expression without end, is no Exception.
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise TokenizerError(f"the library tokenizers failed on a text: {error}") from error
        encoding: tokenizers.Encoding = own
        return encoding


def import_library() -> bool:
    """Imports the library tokenizers, which needs files; False where it is not installed."""
    if importlib.util.find_spec("tokenizers") is None:
        return False
    importlib.import_module("tokenizers")
    return True


def _loaded(content: bytes) -> tokenizers.Tokenizer:
    if not import_library():
        raise TokenizerError("texts need the package tokenizers: pip install 'mass-serve[texts]'")
    from tokenizers import Tokenizer

    try:
        read: tokenizers.Tokenizer = Tokenizer.from_buffer(content)
    except Exception as error:  # the library documents none of its own
        raise TokenizerError(f"the library tokenizers cannot read it: {error}") from error
    return read
