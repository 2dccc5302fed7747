"""Real tokenizers of the three kinds that encoders of texts have, trained on a few sentences."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SENTENCES = [
    "Jane Doe lives in Zürich, and works for Acme-Corp.",
    "Mr. O'Neill flew from New York to São Paulo on 12 May 2021.",
    "Her phone number is +41 44 555-0199; her mail is jane.doe@example.org!",
    "A cat sat on the unbelievable mat, purring untranslatably.",
]
# Words within words, characters of several bytes, no blanks, blanks in a row, what no vocabulary has.
TEXTS = [
    *SENTENCES,
    "Zürichs  Müller-Lüdenscheidt\tlives\nnowhere",
    "  jane,JANE;Doe  ",
    "e\u0301clair 🧿 naïve \u202eright to left 日本語のテキスト",
    "<unk> [UNK] [SEP] </s> Doe",
]
MAX_TOKENS = 80


@functools.cache  # training it again gives another one
def word_pieces() -> Tokenizer:
    """BERT's: lower case, without accents, and `##` before what goes on with a word."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(
        SENTENCES, trainers.WordPieceTrainer(vocab_size=120, special_tokens=special)
    )
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


@functools.cache  # training it again gives another one
def byte_pairs() -> Tokenizer:
    """RoBERTa's: bytes, whose blanks are parts of the words behind them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return tokenizer


@functools.cache  # training it again gives another one
def sentence_pieces() -> Tokenizer:
    """XLM-RoBERTa's: the likeliest pieces of a sentence whose blanks are a character of their own."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="<unk>")
    tokenizer.train_from_iterator(SENTENCES, trainer)
    marks = [("<s>", 0), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=marks)
    return tokenizer


# By kind of model.
TRAINED: dict[str, Callable[[], Tokenizer]] = {
    "Bert": word_pieces,
    "DistilBert": word_pieces,
    "Roberta": byte_pairs,
    "XLMRoberta": sentence_pieces,
    "ModernBert": byte_pairs,
}


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Puts a tokenizer into the folder of a model, in the place of what is there."""
    for other in folder.glob("vocab*"):
        other.unlink()
    tokenizer.save(str(folder / "tokenizer.json"))


def of_transformers(tokenizer: Tokenizer) -> Any:
    """The same tokenizer as transformers' pipelines take it."""
    word_piece = isinstance(tokenizer.model, models.WordPiece)
    names = ("[UNK]", "[PAD]", "[CLS]", "[SEP]") if word_piece else ("<unk>", "<pad>", "<s>", "</s>")
    named = dict(zip(("unk_token", "pad_token", "cls_token", "sep_token"), names, strict=True))
    of_any_kind: Any = transformers.PreTrainedTokenizerFast
    return of_any_kind(
        tokenizer_object=Tokenizer.from_str(tokenizer.to_str()),  # which it changes
        model_max_length=MAX_TOKENS,
        model_input_names=["input_ids", "attention_mask"],
        **named,
    )
