"""Tiny CLIPs with a text tower and a tokenizer, on disk, made by transformers itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from tests.models import VISION, perturb

_BYTES = sorted(ByteLevel.alphabet())
MERGES = [
    ("p", "h"),
    ("ph", "o"),
    ("t", "o</w>"),
    ("pho", "to</w>"),
    ("c", "a"),
    ("ca", "t</w>"),
    ("d", "o"),
    ("do", "g</w>"),
    ("t", "h"),
    ("th", "e</w>"),
    ("'", "s</w>"),
]
START, END = "<|startoftext|>", "<|endoftext|>"
_WORDS = [*_BYTES, *(f"{byte}</w>" for byte in _BYTES), *("".join(pair) for pair in MERGES), START, END]
VOCABULARY = {token: index for index, token in enumerate(_WORDS)}
TEXT: dict[str, Any] = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 24,
    "bos_token_id": VOCABULARY[START],
    "eos_token_id": VOCABULARY[END],
    "pad_token_id": 1,
}
PROJECTION_DIM = 16


def make_clip(seed: int = 0, **changes: Any) -> Any:
    """A randomly initialised CLIPModel whose weights make texts differ."""
    torch.manual_seed(seed)
    config = CLIPConfig(text_config=TEXT | changes, vision_config=VISION, projection_dim=PROJECTION_DIM)
    model: Any = CLIPModel(config)
    perturb(model, seed, 0.1)
    return model.eval()


def make_tokenizer() -> Any:
    """A tokenizer of transformers that knows all bytes and a few words."""
    merges: Any = MERGES  # so read, though declared as texts
    return CLIPTokenizer(vocab=VOCABULARY, merges=merges)


def save_vocabulary(folder: Path) -> None:
    """The tokenizer as vocab.json and merges.txt."""
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(VOCABULARY))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in MERGES)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")


def save_clip(folder: Path, **changes: Any) -> Any:
    """Saves a model with its tokenizer and returns it."""
    model = make_clip(**changes)
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return model


def text_features(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """The embeddings that transformers computes of token ids."""
    with torch.inference_mode():
        found: torch.Tensor = model.get_text_features(input_ids=ids).pooler_output
    return found
