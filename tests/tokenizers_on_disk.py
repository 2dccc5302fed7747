"""Small tokenizers on disk, as libraries of several ages save them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from tokenizers import ByteLevelBPETokenizer

WORDS = (
    "the cat sat on mat ##s ##sat ##ing run ##ner un ##able to über uber caf ##é ##e"
    " 中 ! , . ' a b c ##a ##b ##c"
)
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
BYTE_PAIR_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
BYTE_PAIR_WORDS = ["the", "cat", "sat", "on", "mat", "running", "unable", "café", "Über"]


def save_word_pieces(folder: Path, **settings: Any) -> Path:
    """BERT's: vocab.txt, and what tokenizer_config.json has beside."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *WORDS.split()]) + "\n", encoding="utf-8")
    return _with_settings(folder, "Bert", settings)


def save_byte_pairs(folder: Path, **settings: Any) -> Path:
    """RoBERTa's: vocab.json and merges.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    sentences = [" ".join(random.Random(seed).choices(BYTE_PAIR_WORDS, k=9)) for seed in range(300)]
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(sentences, vocab_size=400, special_tokens=list(BYTE_PAIR_SPECIAL))
    trained.save_model(str(folder))
    return _with_settings(folder, "Roberta", settings)


def _with_settings(folder: Path, kind: str, settings: dict[str, Any]) -> Path:
    told = {"tokenizer_class": f"{kind}Tokenizer", **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    (folder / "config.json").write_text(json.dumps({"model_type": kind.lower()}))
    return folder
