"""Whether a tokenizer takes time and memory in proportion to a text, whatever that text is.

What the library `tokenizers` does by itself is so, measured at 8 microseconds and 3 kB a character at most.
Three things in a tokenizer.json make it otherwise: a regular expression, which may try all ways to match;
steps that each make a text longer; and a word without bound, whose every part is looked up.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tokenizers

STEADY = {
    *("BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Strip", "StripAccents"),
    *("Precompiled", "Prepend", "Replace"),
    *("BertPreTokenizer", "CharDelimiterSplit", "Digits", "Metaspace", "Punctuation", "Split"),
    *("UnicodeScripts", "Whitespace", "WhitespaceSplit", "ByteLevel"),
}
# These make no text longer, as they are checked here; of the others there may be one of each.
REPEATABLE = {"Replace", "Split"}
MOST_STEPS = 16
# Expressions that published tokenizers have and that try each character once: XLM-RoBERTa's, and blanks.
STEADY_PATTERNS = {" {2,}", r"\s+"}
# What stands before a text, or for one character of it. Unicode has 18 characters for one at most.
MOST_CHARACTERS_FOR_ONE = 18
# BERT's is 100; parts of longer words are not looked up.
MOST_WORD_PIECE_CHARACTERS = 200
# From every character on Unigram looks for all pieces that begin there.
MOST_UNIGRAM_CHARACTERS = 512


def is_bounded(tokenizer: tokenizers.Tokenizer) -> bool:
    """Tells whether no text takes the tokenizer more than its share of time and memory.

    False says that it is not known: it has regular expressions of its own, or steps that are not known here.
    """
    if not _model_is_bounded(tokenizer.model, tokenizer):
        return False
    parts = (tokenizer.normalizer, tokenizer.pre_tokenizer)
    return all(_steps_are_bounded(list(_steps(_state(part)))) for part in parts if part is not None)


def _state(part: Any) -> Mapping[str, Any]:
    """A part as a tokenizer.json has it: what the library pickles of it."""
    state: dict[str, Any] = json.loads(part.__getstate__())
    return state


def _steps(state: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yields what a part does, one thing after the other."""
    if state.get("type") != "Sequence":
        yield state
        return
    for inner in state.get("normalizers", state.get("pretokenizers", ())):
        yield from _steps(inner)


def _steps_are_bounded(steps: list[Mapping[str, Any]]) -> bool:
    once = [step.get("type") for step in steps if step.get("type") not in REPEATABLE]
    return (
        len(steps) <= MOST_STEPS
        and len(once) == len(set(once))
        and all(step.get("type") in STEADY and _is_bounded_step(step) for step in steps)
    )


def _is_bounded_step(step: Mapping[str, Any]) -> bool:
    pattern = step.get("pattern")
    if isinstance(pattern, Mapping):
        return _is_bounded_pattern(pattern, step.get("content", ""))
    if step["type"] == "Prepend":
        return len(step["prepend"]) <= MOST_CHARACTERS_FOR_ONE
    if step["type"] == "Precompiled":
        return _longest_replacement(step["precompiled_charsmap"]) <= MOST_CHARACTERS_FOR_ONE
    return True


def _is_bounded_pattern(pattern: Mapping[str, Any], replacement: str) -> bool:
    """Tells whether what matches is found at once, and what takes its place is no longer."""
    if "String" in pattern:
        return len(pattern["String"]) >= 1 and len(replacement) <= len(pattern["String"])
    return pattern.get("Regex") in STEADY_PATTERNS and len(replacement) <= 1


def _longest_replacement(charsmap: str) -> float:
    """The characters of the longest text that SentencePiece's table, behind its index, has for another.

    The index's length comes first, in 4 bytes; the texts follow it, and each ends with a NUL.
    """
    try:
        table = base64.b64decode(charsmap, validate=True)
        texts = table[4 + int.from_bytes(table[:4], "little") :].decode()
    except (binascii.Error, UnicodeDecodeError):
        return float("inf")
    return max(map(len, texts.split("\0")))


def _model_is_bounded(model: Any, tokenizer: tokenizers.Tokenizer) -> bool:
    kind = type(model).__name__
    if kind == "WordPiece":
        return bool(model.max_input_chars_per_word <= MOST_WORD_PIECE_CHARACTERS)
    if kind == "Unigram":
        longest = max(map(len, tokenizer.get_vocab(with_added_tokens=False)), default=0)
        return longest <= MOST_UNIGRAM_CHARACTERS
    return kind in ("BPE", "WordLevel")
