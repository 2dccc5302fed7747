"""The tokenizer of a checkpoint's folder, in the one form that stores have: the content of a tokenizer.json.

Folders of earlier libraries have a vocabulary instead, and BERT's and RoBERTa's become that form here, by the
steps that transformers takes.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.format.manifest import MOST_TOKENIZER_BYTES, TOKENIZER_FILE
from mass_serve.model_store.readers.json_files import read_json_object
from mass_serve.model_store.storage.regular_files import read_text_file

if TYPE_CHECKING:
    import tokenizers

CONFIG_FILE, MODEL_CONFIG_FILE = "tokenizer_config.json", "config.json"
WORD_PIECES_FILE = "vocab.txt"  # of BERT and DistilBERT
BYTE_PAIRS_FILES = ("vocab.json", "merges.txt")  # of RoBERTa
# Rows behind the last token, so that the table has a multiple of 128.
MOST_PADDING = 127
# How transformers calls those that are made here of a vocabulary.
WORD_PIECES_CLASSES = ("BertTokenizer", "BertTokenizerFast", "DistilBertTokenizer", "DistilBertTokenizerFast")
BYTE_PAIRS_CLASSES = ("RobertaTokenizer", "RobertaTokenizerFast")
BERT_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
ROBERTA_TOKENS = {
    "cls_token": "<s>",
    "pad_token": "<pad>",
    "sep_token": "</s>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}


@dataclass(frozen=True)
class StoredTokenizer:
    """A tokenizer as a store keeps it."""

    content: bytes  # of tokenizer.json
    vocabulary: Mapping[str, int]  # every token, added ones too

    @property
    def sha256(self) -> str:
        """The hash of the content."""
        return hashlib.sha256(self.content).hexdigest()

    @classmethod
    def of(cls, where: str, content: bytes) -> StoredTokenizer:
        """Reads what a store keeps. Raises CheckpointError."""
        _require_library()
        return cls(content, parsed(where, content).get_vocab(with_added_tokens=True))


def read_tokenizer(folder: Path, embedded_tokens: int, token_types: int = 1) -> StoredTokenizer:
    """Reads the tokenizer of a model that embeds so many tokens, of so many types.

    A model of one type does not look at types. Raises CheckpointError where there is none, where it cannot be
    used, and where the model does not have all of its tokens.
    """
    _require_library()
    tokenizer = _tokenizer_in(folder)
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
    return StoredTokenizer(content, vocabulary)


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
        return _of_json(path)
    if (path := folder / WORD_PIECES_FILE).exists():
        _refuse_other_class(folder, WORD_PIECES_CLASSES)
        return _of_word_pieces(path, _settings(folder))
    if _has_byte_pairs(folder):
        _refuse_other_class(folder, BYTE_PAIRS_CLASSES)
        return _of_byte_pairs(folder, _settings(folder))
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


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    return read_json_object(path) if path.exists() else {}


def _of_word_pieces(path: Path, settings: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """A vocabulary of word pieces, one a line, as BERT's tokenizer uses it."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    vocabulary = {token: number for number, token in enumerate(_lines(path))}
    special = _special_tokens(path, BERT_TOKENS, settings, vocabulary)
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=special["unk_token"]))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=_is(path, settings, "tokenize_chinese_chars", True),
        strip_accents=_flag(path, settings, "strip_accents", None),
        lowercase=_is(path, settings, "do_lower_case", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(list(special.values()))
    tokenizer.post_processor = processors.BertProcessing(*_marks(special, vocabulary))
    return tokenizer


def _of_byte_pairs(folder: Path, settings: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """A vocabulary of byte pairs and their merges, as RoBERTa's tokenizer uses them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    path, merges_path = (folder / name for name in BYTE_PAIRS_FILES)
    vocabulary, merges = read_json_object(path), _merges(merges_path)
    special = _special_tokens(path, ROBERTA_TOKENS, settings, vocabulary)
    try:
        tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token=special["unk_token"]))
    except Exception as error:  # the library documents none of its own
        raise CheckpointError(f"{path} and {merges_path.name} do not fit together: {error}") from error
    prefix = _is(path, settings, "add_prefix_space", False)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(special.values()))
    tokenizer.post_processor = processors.RobertaProcessing(
        *_marks(special, vocabulary), trim_offsets=True, add_prefix_space=prefix
    )
    return tokenizer


def _special_tokens(
    path: Path, usual: Mapping[str, str], settings: Mapping[str, Any], vocabulary: Mapping[str, Any]
) -> dict[str, str]:
    """The special tokens by what they are for. Raises CheckpointError for one that the vocabulary lacks."""
    found: dict[str, str] = {}
    for purpose, token in usual.items():
        told = settings.get(purpose)
        told = told.get("content") if isinstance(told, dict) else told
        found[purpose] = token if told is None else told
        if not isinstance(found[purpose], str):
            where = path.parent / CONFIG_FILE
            raise CheckpointError(f"{where}: {purpose} must be a token, found {told!r:.80}")
        if type(vocabulary.get(found[purpose])) is not int:
            raise CheckpointError(f"{path} has no {found[purpose]!r:.80}, the tokenizer's {purpose}")
    return found


def _marks(
    special: Mapping[str, str], vocabulary: Mapping[str, int]
) -> tuple[tuple[str, int], tuple[str, int]]:
    """The token behind a text and the one before it."""
    separator, beginning = special["sep_token"], special["cls_token"]
    return (separator, vocabulary[separator]), (beginning, vocabulary[beginning])


def _is(path: Path, settings: Mapping[str, Any], name: str, usual: bool) -> bool:
    return bool(_flag(path, settings, name, usual))


def _flag(path: Path, settings: Mapping[str, Any], name: str, usual: bool | None) -> bool | None:
    value = settings.get(name, usual)
    if not (value is None or isinstance(value, bool)):
        raise CheckpointError(
            f"{path.parent / CONFIG_FILE}: {name} must be true or false, found {value!r:.80}"
        )
    return usual if value is None else value


def _merges(path: Path) -> list[tuple[str, str]]:
    """Reads two tokens a line; the first line may say a version."""
    merges = []
    for number, line in enumerate(_lines(path), start=1):
        if not line or (number == 1 and line.startswith("#version")):
            continue
        first, blank, second = line.partition(" ")
        if not (first and blank and second) or " " in second:
            raise CheckpointError(f"{path}, line {number}: a merge must be of two tokens, found {line!r:.80}")
        merges.append((first, second))
    return merges


def _lines(path: Path) -> list[str]:
    try:
        text = read_text_file(path).decode("utf-8")
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: byte {error.start} is not UTF-8") from error
    # Not `splitlines`: vocabularies have tokens that Unicode takes for ends of a line.
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines
