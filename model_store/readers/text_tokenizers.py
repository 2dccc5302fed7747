"""The tokenizer of a checkpoint's folder, in the one form that stores have: the content of a tokenizer.json.

Folders of earlier libraries have a vocabulary instead, of which `vocabularies` makes that form.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.format.file_names import MOST_TOKENIZER_BYTES, TOKENIZER_FILE
from mass_serve.model_store.readers.json_files import read_json_object
from mass_serve.model_store.readers.token_types import with_types_as_told
from mass_serve.model_store.readers.vocabularies import (
    BYTE_PAIRS_CLASSES,
    BYTE_PAIRS_FILES,
    CONFIG_FILE,
    MODEL_CONFIG_FILE,
    WORD_PIECES_CLASSES,
    WORD_PIECES_FILE,
    as_told,
    of_byte_pairs,
    of_word_pieces,
    read_settings,
)

if TYPE_CHECKING:
    import tokenizers

# Rows behind the last token, so that the table has a multiple of 128.
MOST_PADDING = 127


@dataclass(frozen=True)
class StoredTokenizer:
    """A tokenizer as a store keeps it."""

    content: bytes  # of tokenizer.json
    vocabulary: Mapping[str, int]  # every token, added ones too
    num_marks: int  # tokens around a text

    @property
    def sha256(self) -> str:
        """The hash of the content."""
        return hashlib.sha256(self.content).hexdigest()

    @classmethod
    def of(cls, where: str, content: bytes) -> StoredTokenizer:
        """Reads what a store keeps. Raises CheckpointError."""
        _require_library()
        return cls._of(parsed(where, content), content)

    @classmethod
    def _of(cls, tokenizer: tokenizers.Tokenizer, content: bytes) -> StoredTokenizer:
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        return cls(content, vocabulary, tokenizer.num_special_tokens_to_add(is_pair=False))


def read_tokenizer(folder: Path, embedded_tokens: int, token_types: int = 1) -> StoredTokenizer:
    """Reads the tokenizer of a model that embeds so many tokens, of so many types.

    A model of one type does not look at types. Raises CheckpointError where there is none, where it cannot be
    used, and where the model does not have all of its tokens.
    """
    _require_library()
    tokenizer = with_types_as_told(folder, _tokenizer_in(folder), read_settings(folder))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    vocabulary: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
    largest = max(vocabulary.values(), default=0)
    if largest >= embedded_tokens:
        raise CheckpointError(
            f"{folder}: the tokenizer has ids up to {largest}, and the model embeds {embedded_tokens} tokens:"
            " it is of another model"
        )
    _check_marks(folder, tokenizer, embedded_tokens, token_types)
    content = tokenizer.to_str().encode()
    if len(content) > MOST_TOKENIZER_BYTES:
        raise CheckpointError(
            f"{folder}: the tokenizer has {len(content):,} bytes, and at most {MOST_TOKENIZER_BYTES:,} are"
            " read"
        )
    return StoredTokenizer._of(tokenizer, content)


def _check_marks(
    folder: Path, tokenizer: tokenizers.Tokenizer, embedded_tokens: int, token_types: int
) -> None:
    """Holds what is put around a text and between two, which may be of no vocabulary, to what is embedded."""
    for marks in (tokenizer.encode(""), tokenizer.encode("", "")):
        if any(id_ >= embedded_tokens for id_ in marks.ids):
            raise CheckpointError(
                f"{folder}: the tokenizer puts the ids {marks.ids} around a text, and the model embeds"
                f" {embedded_tokens} tokens: it is of another model"
            )
        if token_types > 1 and any(type_ >= token_types for type_ in marks.type_ids):
            raise CheckpointError(
                f"{folder}: the tokenizer gives tokens the types {sorted(set(marks.type_ids))}, and the"
                f" model has {token_types} types: it is of another model"
            )


def check_uses_table(folder: Path, own: StoredTokenizer, embedded_tokens: int) -> None:
    """Raises CheckpointError where a model embeds so many tokens more that the tokenizer is of another one.

    Of n embedded tokens max(127, n / 100) may be of no use: tables are padded to a multiple of up to 128, and
    some keep rows in reserve (multilingual MiniLM 35 of 250,037).
    """
    used = len(set(own.vocabulary.values()))
    if embedded_tokens - used > max(MOST_PADDING, embedded_tokens // 100):
        raise CheckpointError(
            f"{folder}: the tokenizer has {used} tokens, and the model embeds {embedded_tokens}: it is of"
            " another model (--force takes it all the same)"
        )


def has_tokenizer(folder: Path) -> bool:
    """Tells whether a folder has a tokenizer: that of a fine-tuned model is often the pretrained one's."""
    alone = (TOKENIZER_FILE, WORD_PIECES_FILE)
    return any((folder / name).exists() for name in alone) or _has_byte_pairs(folder)


def _has_byte_pairs(folder: Path) -> bool:
    return all((folder / name).exists() for name in BYTE_PAIRS_FILES)


def _tokenizer_in(folder: Path) -> tokenizers.Tokenizer:
    if (path := folder / TOKENIZER_FILE).exists():
        return as_told(folder, _of_json(path), read_settings(folder))
    if (path := folder / WORD_PIECES_FILE).exists():
        _refuse_other_class(folder, WORD_PIECES_CLASSES)
        return of_word_pieces(path, read_settings(folder))
    if _has_byte_pairs(folder):
        _refuse_other_class(folder, BYTE_PAIRS_CLASSES)
        return of_byte_pairs(folder, read_settings(folder))
    raise CheckpointError(
        f"{folder} has no {TOKENIZER_FILE}, no {WORD_PIECES_FILE}, and not both of"
        f" {' and '.join(BYTE_PAIRS_FILES)}: save the tokenizer with the model, in transformers by"
        " tokenizer.save_pretrained(folder)"
    )


def _refuse_other_class(folder: Path, expected: tuple[str, ...]) -> None:
    """Raises CheckpointError for the vocabulary of another kind of tokenizer: BertJapaneseTokenizer's."""
    for path in (folder / CONFIG_FILE, folder / MODEL_CONFIG_FILE):
        told = read_json_object(path).get("tokenizer_class") if path.exists() else None
        if told is not None and told not in expected:
            raise CheckpointError(
                f"{path}: tokenizer_class is {told!r:.80}, and a vocabulary is read as that of"
                f" {expected[0]}: save the tokenizer as {TOKENIZER_FILE}"
            )


def _of_json(path: Path) -> tokenizers.Tokenizer:
    return parsed(str(path), json.dumps(read_json_object(path)).encode())


def parsed(where: str, content: bytes) -> tokenizers.Tokenizer:
    """Reads the content of a tokenizer.json. Raises CheckpointError."""
    from tokenizers import Tokenizer

    try:
        read: tokenizers.Tokenizer = Tokenizer.from_buffer(content)
    except Exception as error:  # the library documents none of its own
        raise CheckpointError(f"{where} is no tokenizer that the library reads: {error}") from error
    return read


def _require_library() -> None:
    if importlib.util.find_spec("tokenizers") is None:
        raise CheckpointError("models of texts need the package tokenizers: pip install 'mass-serve[texts]'")
