"""Tokenizers of a vocabulary and of settings: BERT's and RoBERTa's, by the steps that transformers takes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.format.file_names import TOKENIZER_FILE
from mass_serve.model_store.readers.json_files import read_json_object
from mass_serve.model_store.storage.regular_files import read_text_file

if TYPE_CHECKING:
    import tokenizers

CONFIG_FILE, MODEL_CONFIG_FILE = "tokenizer_config.json", "config.json"
WORD_PIECES_FILE = "vocab.txt"  # of BERT and DistilBERT
BYTE_PAIRS_FILES = ("vocab.json", "merges.txt")  # of RoBERTa
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


def read_settings(folder: Path) -> dict[str, Any]:
    """Reads what is said of a tokenizer beside its file."""
    path = folder / CONFIG_FILE
    return read_json_object(path) if path.exists() else {}


def as_told(
    folder: Path, tokenizer: tokenizers.Tokenizer, settings: Mapping[str, Any]
) -> tokenizers.Tokenizer:
    """A tokenizer of BERT's class, where the settings beside its file are above what that says of case."""
    from tokenizers import normalizers

    normalizer = tokenizer.normalizer
    if settings.get("tokenizer_class") in WORD_PIECES_CLASSES and isinstance(
        normalizer, normalizers.BertNormalizer
    ):
        tokenizer.normalizer = _normalizer(folder / TOKENIZER_FILE, settings, normalizer)
    return tokenizer


def _normalizer(
    path: Path, settings: Mapping[str, Any], usual: tokenizers.normalizers.BertNormalizer
) -> tokenizers.normalizers.BertNormalizer:
    """BERT's normalizer as the settings have it, and else as usual."""
    from tokenizers import normalizers

    return normalizers.BertNormalizer(
        clean_text=usual.clean_text,
        handle_chinese_chars=_is(path, settings, "tokenize_chinese_chars", usual.handle_chinese_chars),
        strip_accents=_flag(path, settings, "strip_accents", usual.strip_accents),
        lowercase=_is(path, settings, "do_lower_case", usual.lowercase),
    )


def of_word_pieces(path: Path, settings: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """A vocabulary of word pieces, one a line, as BERT's tokenizer uses it."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    vocabulary = {token: number for number, token in enumerate(_lines(path))}
    special = _special_tokens(path, BERT_TOKENS, settings, vocabulary)
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=special["unk_token"]))
    usual = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=True
    )
    tokenizer.normalizer = _normalizer(path, settings, usual)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(list(special.values()))
    tokenizer.post_processor = processors.BertProcessing(*_marks(special, vocabulary))
    return tokenizer


def of_byte_pairs(folder: Path, settings: Mapping[str, Any]) -> tokenizers.Tokenizer:
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
