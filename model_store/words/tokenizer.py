"""Texts to token ids, by the tokenizer's files that lie beside a checkpoint.

    tokenizer = read_tokenizer(folder, architecture)
    tokenizer.ids(["a photo of a cat."])  # [1, 7]

The pipeline is that of transformers' `CLIPTokenizer`: Unicode's composed form (NFC), runs of blanks made one,
lower case, then words, contractions, single digits and punctuation, each cut into byte pairs. What the code
of OpenAI and open_clip does before that is not done here, nor by transformers: broken encodings are not
mended (`ftfy`), and HTML entities such as `&amp;` stay what they are. Of a tokenizer.json the vocabulary and
the merges are taken, as transformers does.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.readers.json_files import read_json_object
from mass_serve.model_store.storage.regular_files import read_text_file
from mass_serve.model_store.words.text_tower import TextArchitecture

if TYPE_CHECKING:
    import tokenizers

Vocabulary: TypeAlias = dict[str, int]
Merges: TypeAlias = list[tuple[str, str]]

TOKENIZER_FILE, VOCABULARY_FILE, MERGES_FILE = "tokenizer.json", "vocab.json", "merges.txt"
START, END = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class ClipTokenizer:
    """A tokenizer that puts texts between a start and an end token."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, context_length: int) -> None:
        """Longer texts will be cut to `context_length` tokens, the two around them included."""
        tokenizer.enable_truncation(context_length)
        tokenizer.no_padding()
        self._tokenizer = tokenizer

    def ids(self, texts: Sequence[str]) -> Tensor:
        """Returns the token ids [n, l] of n texts, filled up with 0 behind the end of the shorter ones."""
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        longest = max(map(len, rows))
        return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])


def read_tokenizer(folder: Path, architecture: TextArchitecture) -> ClipTokenizer:
    """Reads tokenizer.json, or vocab.json and merges.txt, and holds it to the text tower that it is for.

    Raises CheckpointError where there is none, where it cannot be used, and where it is of another model.
    """
    tokenizer = _tokenizer_in(folder)
    found, largest = tokenizer.token_to_id(END), max(tokenizer.get_vocab().values())
    if largest >= architecture.vocabulary:
        raise CheckpointError(
            f"{folder}: the tokenizer has ids up to {largest}, and the text tower embeds"
            f" {architecture.vocabulary} tokens: it is of another model"
        )
    end = largest if architecture.end_token is None else architecture.end_token
    if found != end:
        raise CheckpointError(
            f"{folder}: the tokenizer ends a text with token {found}, the text tower expects {end}:"
            " it is of another model"
        )
    return ClipTokenizer(tokenizer, architecture.context_length)


def _tokenizer_in(folder: Path) -> tokenizers.Tokenizer:
    if importlib.util.find_spec("tokenizers") is None:
        raise CheckpointError("heads from words need the package tokenizers: pip install 'mass-serve[words]'")
    if (path := folder / TOKENIZER_FILE).exists():
        return _clip_tokenizer(path, *_in_tokenizer_json(path))
    if (path := folder / VOCABULARY_FILE).exists():
        return _clip_tokenizer(path, read_json_object(path), _read_merges(folder / MERGES_FILE))
    raise CheckpointError(
        f"{folder} has neither {TOKENIZER_FILE} nor {VOCABULARY_FILE} and {MERGES_FILE}: give the folder of"
        " a model that has them with --tokenizer; openai/clip-vit-base-patch32 has OpenAI's and open_clip's"
    )


def _clip_tokenizer(path: Path, vocabulary: Vocabulary, merges: Merges) -> tokenizers.Tokenizer:
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    if missing := [token for token in (START, END) if token not in vocabulary]:
        raise CheckpointError(f"{path}: the vocabulary lacks {missing[0]}, which a CLIP's has")
    try:
        model = models.BPE(vocabulary, merges, unk_token=END, end_of_word_suffix=_WORD_END)
    except Exception as error:  # the library documents none of its own
        raise CheckpointError(f"{path}: vocabulary and merges do not fit together: {error}") from error
    tokenizer = Tokenizer(model)
    one_blank = normalizers.Replace(Regex(r"\s+"), " ")
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), one_blank, normalizers.Lowercase()])
    words = pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True)
    bytes_of_words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, bytes_of_words])
    tokenizer.add_special_tokens([START, END])
    around = ((END, vocabulary[END]), (START, vocabulary[START]))
    tokenizer.post_processor = processors.RobertaProcessing(*around, False, False)
    return tokenizer


def _in_tokenizer_json(path: Path) -> tuple[Vocabulary, Merges]:
    """Reads the vocabulary and the merges. Raises CheckpointError where they are not of a CLIP."""
    content = read_json_object(path)
    model = content.get("model")
    if not isinstance(model, dict) or model.get("end_of_word_suffix") != _WORD_END:
        raise CheckpointError(
            f"{path}: the model must be byte pairs whose words end with {_WORD_END}, as CLIP's"
        )
    vocabulary, merges, added = model.get("vocab"), model.get("merges"), content.get("added_tokens") or []
    if not isinstance(vocabulary, dict) or not isinstance(merges, list) or not isinstance(added, list):
        raise CheckpointError(f"{path} must hold a vocab, an object, with merges and added_tokens, lists")
    others = [
        token for token in added if not isinstance(token, dict) or token.get("content") not in (START, END)
    ]
    if others:
        raise CheckpointError(
            f"{path} adds {others[0]!r:.200}, and a CLIP has no tokens beyond {START} and {END}"
        )
    return vocabulary, [
        _pair(path, merge.split(" ") if isinstance(merge, str) else merge) for merge in merges
    ]


def _read_merges(path: Path) -> Merges:
    """Reads two tokens a line; the first line may say a version."""
    try:
        lines = read_text_file(path).decode().splitlines()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: byte {error.start} is not UTF-8") from error
    if lines and lines[0].startswith("#version"):
        del lines[0]
    return [_pair(path, line.split(" ")) for line in lines if line]


def _pair(path: Path, merge: Any) -> tuple[str, str]:
    match merge:
        case [str(first), str(second)]:
            return first, second
    raise CheckpointError(f"{path}: a merge must be of two tokens, found {merge!r:.200}")
