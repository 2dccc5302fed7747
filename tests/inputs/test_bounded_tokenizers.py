"""Which tokenizers take no text more than its share: those of published encoders, and none that might."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from mass_serve.inputs.texts import TextTokenizer
from mass_serve.model_store.readers.text_tokenizers import read_tokenizer
from tests.tokenizers_on_disk import save_byte_pairs, save_word_pieces


def charsmap(*texts: str) -> bytes:
    """SentencePiece's table: the length of its index, the index, and texts that stand for others."""
    return struct.pack("<III", 8, 0, 0) + b"".join(text.encode() + b"\0" for text in texts)


def unigram(*pieces: str) -> Tokenizer:
    return Tokenizer(models.Unigram([("<unk>", 0.0), *((piece, -1.0) for piece in ("a", *pieces))], 0))


def with_parts(normalizer: Any = None, pre_tokenizer: Any = None) -> Tokenizer:
    tokenizer = unigram()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    return tokenizer


def is_bounded(tokenizer: Tokenizer) -> bool:
    return TextTokenizer(tokenizer.to_str().encode(), 8).is_bounded


@pytest.mark.parametrize("save", [save_word_pieces, save_byte_pairs])
def test_those_of_bert_and_roberta_are_bounded(save: Any, tmp_path: Path) -> None:
    assert TextTokenizer(read_tokenizer(save(tmp_path), 400).content, 8).is_bounded


BLANKS = normalizers.Replace(Regex(" {2,}"), "\u2581")
BOUNDED = {
    # XLM-RoBERTa's
    "sentence pieces": with_parts(
        normalizers.Sequence([normalizers.Precompiled(charsmap("fi", "1/2")), BLANKS]),
        pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]),
    ),
    # mmBERT's
    "gemma": with_parts(
        normalizers.Replace(" ", "\u2581"), pre_tokenizers.Split(" ", "merged_with_previous")
    ),
    "modernbert": with_parts(normalizers.NFC(), pre_tokenizers.ByteLevel()),
    "nothing": with_parts(),
}


@pytest.mark.parametrize("name", BOUNDED)
def test_those_of_other_published_encoders_are_bounded(name: str) -> None:
    assert is_bounded(BOUNDED[name])


def word_pieces(longest: int) -> Tokenizer:
    return Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]", max_input_chars_per_word=longest))


def split(pattern: Any) -> Any:
    return pre_tokenizers.Split(pattern, "isolated")


UNBOUNDED = {
    "an expression to split by": with_parts(None, split(Regex("(a+)+$"))),
    "one among others": with_parts(
        None, pre_tokenizers.Sequence([pre_tokenizers.Digits(), split(Regex("(a+)+$"))])
    ),
    "an expression to replace": with_parts(normalizers.Replace(Regex("(a|a)*b"), "")),
    "a longer text in place of a short one": with_parts(normalizers.Replace("a", "aa")),
    "a longer text in place of blanks": with_parts(normalizers.Replace(Regex(" {2,}"), "aa")),
    "a text in place of nothing": with_parts(normalizers.Replace("", "a")),
    "a long text before each": with_parts(normalizers.Prepend("a" * 1000)),
    "bytes of bytes": with_parts(normalizers.Sequence([normalizers.ByteLevel()] * 3)),
    "a long text in a table": with_parts(normalizers.Precompiled(charsmap("fi", "a" * 1000))),
    "a great many steps": with_parts(normalizers.Sequence([BLANKS] * 100)),
    "words without bound": word_pieces(1_000_000_000),
    "a long piece": unigram("a" * 10_000),
}


@pytest.mark.parametrize("name", UNBOUNDED)
def test_what_might_take_more_is_not_known_to_be_bounded(name: str) -> None:
    assert not is_bounded(UNBOUNDED[name])


def test_the_usual_bound_of_words_is_one() -> None:
    assert is_bounded(word_pieces(100))
