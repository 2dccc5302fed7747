"""What a worker process does with a text: make tokens of it, by the tokenizer that it keeps."""

from __future__ import annotations

import struct
from typing import get_args

import numpy as np

from mass_serve.inputs.texts import Text, TextTokenizer, Tokens, Truncation, import_library, parts

OPTIONS = struct.Struct("<BQ?")
TRUNCATIONS: tuple[Truncation, ...] = get_args(Truncation)
HEAD = struct.Struct("<q")
WORD_BYTES = 16  # an id and a type

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
    truncation, first, is_pair = OPTIONS.unpack(options)
    text = (str(data[:first], "utf-8"), str(data[first:], "utf-8")) if is_pair else str(data, "utf-8")
    return packed(tokenizer.tokens(text, TRUNCATIONS[truncation]))


def packed_text(text: Text, truncation: Truncation) -> tuple[bytes, bytes]:
    """Returns a text as the data and the options of `tokenise`."""
    encoded = [part.encode() for part in parts(text)]
    options = OPTIONS.pack(TRUNCATIONS.index(truncation), len(encoded[0]), isinstance(text, tuple))
    return b"".join(encoded), options


def packed(tokens: Tokens) -> bytes:
    """Returns tokens as bytes."""
    return HEAD.pack(tokens.cut) + tokens.words.astype("<i8").tobytes()


def unpacked(result: bytearray) -> Tokens:
    """Reads the bytes of `packed`."""
    (cut,) = HEAD.unpack_from(result)
    return Tokens(np.frombuffer(result, "<i8", offset=HEAD.size).reshape(-1, 2), cut)


keep.keeps = True  # type: ignore[attr-defined]
keep.warm = import_library  # type: ignore[attr-defined]
