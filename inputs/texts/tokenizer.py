"""From a text to the tokens that an encoder takes, by the tokenizer that its store brings along.

    tokenizer = TextTokenizer(content, max_tokens=512)  # content: of tokenizer.json
    tokens = tokenizer.tokens("what a day")
    tokens.words, tokens.cut  # [5, 2], 0

The library `tokenizers` does it, as for transformers, and nothing else: no network, and no file but the one
that the store has checked. It takes time in proportion to the text, and other threads run meanwhile.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mass_serve.inputs.errors import EmptyInputError

if TYPE_CHECKING:
    import tokenizers


# A word and a character that few vocabularies have: what stands for the unknown is one more token.
PROBES = ("a", "\U0001f9ff")


class TokenizerError(Exception):
    """A tokenizer cannot be used; the text is one sentence that says why."""


@dataclass(frozen=True)
class Tokens:
    """Holds what an encoder takes of a text."""

    words: NDArray[np.int64]  # [n, 2]: id and type of each token, those that mark begin and end among them
    cut: int  # how many tokens the text had beyond those; 0: the encoder reads all of it


class TextTokenizer:
    """A tokenizer of a store. Threads may use it at once."""

    def __init__(self, content: bytes, max_tokens: int) -> None:
        """Reads the content of a tokenizer.json; an encoder takes `max_tokens` of a text.

        Raises TokenizerError for content that the library does not read, for one that leaves tokens out by
        chance, and for so few tokens that a text would have none beside the marks around it.
        """
        self._tokenizer = _loaded(content)
        # What was saved with them would pad a text, or cut it without a word.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        if getattr(self._tokenizer.model, "dropout", None):
            raise TokenizerError("the tokenizer leaves merges out by chance (dropout); save it without that")
        self._room = max_tokens - self._tokenizer.num_special_tokens_to_add(is_pair=False)
        if self._room < 1:
            raise TokenizerError(f"of {max_tokens} tokens none is left for the text itself")

    @property
    def vocabulary(self) -> Mapping[str, int]:
        """Every token and its id."""
        found: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        return found

    def check_fits(self, vocabulary: int, num_types: int) -> None:
        """Raises TokenizerError where tokens have ids or types beyond those of an encoder, or make none."""
        largest = max(self.vocabulary.values(), default=0)
        if largest >= vocabulary:
            raise TokenizerError(f"it has ids up to {largest}, and the encoder {vocabulary} tokens")
        for text in PROBES:
            words = self._probed(text)
            if (words >= np.array([vocabulary, num_types])).any():
                raise TokenizerError(
                    f"it makes {words.tolist()} of {text!r}, ids and types, and the encoder has {vocabulary}"
                    f" tokens of {num_types} types"
                )

    def _probed(self, text: str) -> NDArray[np.int64]:
        try:
            return self.tokens(text).words
        except EmptyInputError:  # as where what is unknown is left out
            return np.zeros((0, 2), np.int64)
        except Exception as error:  # the library documents none of its own
            raise TokenizerError(f"it makes no tokens of {text!r}: {error}") from error

    def tokens(self, text: str) -> Tokens:
        """The first tokens of a text that `check_texts` has let pass, as many as the encoder takes.

        Raises EmptyInputError for a text of which nothing is left: blanks, or marks that change no word;
        TokenizerError where the library fails.
        """
        own = self._encoded(text)
        length = len(own)
        if not length:
            raise EmptyInputError("The text has no word in it that the tokenizer knows of; send one.")
        if length > self._room:
            own.truncate(self._room)
        marked = self._tokenizer.post_process(own, None, True)
        words = np.stack([np.array(marked.ids, np.int64), np.array(marked.type_ids, np.int64)], axis=1)
        return Tokens(words, max(0, length - self._room))

    def _encoded(self, text: str) -> tokenizers.Encoding:
        try:
            # The batched form alone lets other threads run meanwhile.
            (own,) = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)
        except BaseException as error:
            # A panic of the library, such as of a regular expression without end, is no Exception.
            if type(error).__name__ != "PanicException":
                raise
            raise TokenizerError(f"the library tokenizers failed on a text: {error}") from error
        encoding: tokenizers.Encoding = own
        return encoding


def _loaded(content: bytes) -> tokenizers.Tokenizer:
    if importlib.util.find_spec("tokenizers") is None:
        raise TokenizerError("texts need the package tokenizers: pip install 'mass-serve[texts]'")
    from tokenizers import Tokenizer

    try:
        read: tokenizers.Tokenizer = Tokenizer.from_buffer(content)
    except Exception as error:  # the library documents none of its own
        raise TokenizerError(f"the library tokenizers cannot read it: {error}") from error
    return read
