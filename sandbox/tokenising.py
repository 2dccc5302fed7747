"""What a worker process does with a text: make tokens of it, by the tokenizer that it keeps."""

from __future__ import annotations

import struct
from typing import get_args

import numpy as np

from mass_serve.inputs.texts import (
    Places,
    Text,
    TextTokenizer,
    Tokens,
    Truncation,
    import_library,
    parts,
)

OPTIONS = struct.Struct("<BQ??")
TRUNCATIONS: tuple[Truncation, ...] = get_args(Truncation)
HEAD = struct.Struct("<qq")  # how many tokens are cut, and how many there are
# An id and a type; where it begins and ends, and whether it goes on with a word.
WORD_BYTES, PLACE_BYTES = 16, 17
TOKEN_BYTES = WORD_BYTES + PLACE_BYTES

# Of the one store that is served: what was kept before goes. The process is nobody else's.
_kept: list[TextTokenizer] = []


def keep(data: memoryview, options: bytes) -> bytes:
    """Reads the content of a tokenizer.json, of which `options` tokens are taken. Raises TokenizerError."""
    _kept.clear()
    _kept.append(TextTokenizer(bytes(data), int(options)))
    return b""


def tokenise(data: memoryview, options: bytes) -> bytes:
    """Returns the tokens of a text, as `packed_text` has it. Raises what `TextTokenizer.tokens` raises."""
    (tokenizer,) = _kept
    truncation, first, is_pair, placed = OPTIONS.unpack(options)
    text = (str(data[:first], "utf-8"), str(data[first:], "utf-8")) if is_pair else str(data, "utf-8")
    return packed(tokenizer.tokens(text, TRUNCATIONS[truncation], placed=placed))


def packed_text(text: Text, truncation: Truncation, placed: bool) -> tuple[bytes, bytes]:
    """Returns a text as the data and the options of `tokenise`."""
    encoded = [part.encode() for part in parts(text)]
    is_pair = isinstance(text, tuple)
    return b"".join(encoded), OPTIONS.pack(TRUNCATIONS.index(truncation), len(encoded[0]), is_pair, placed)


def packed(tokens: Tokens) -> bytes:
    """Returns tokens as bytes, without the text that they may have places in."""
    words = HEAD.pack(tokens.cut, len(tokens.words)) + tokens.words.astype("<i8").tobytes()
    if tokens.places is None:
        return words
    places = tokens.places
    return words + places.offsets.astype("<i8").tobytes() + places.continues.tobytes()


def unpacked(result: bytearray, text: Text) -> Tokens:
    """Reads the bytes of `packed`, made of that text."""
    cut, count = HEAD.unpack_from(result)
    words = np.frombuffer(result, "<i8", 2 * count, HEAD.size).reshape(-1, 2)
    if len(result) == HEAD.size + WORD_BYTES * count or not isinstance(text, str):
        return Tokens(words, cut)
    offsets = np.frombuffer(result, "<i8", 2 * count, HEAD.size + WORD_BYTES * count).reshape(-1, 2)
    return Tokens(words, cut, Places(text, offsets, np.frombuffer(result, bool, count, len(result) - count)))


keep.keeps = True  # type: ignore[attr-defined]
keep.warm = import_library  # type: ignore[attr-defined]
