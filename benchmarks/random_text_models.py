"""Checkpoints of text encoders of real sizes with random weights, made by transformers, and their texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.format.file_names import MANIFEST_FILE
from mass_serve.model_store.plan import TaskInput

MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CLASS, SEPARATOR, FIRST_WORD = 2, 3, len(MARKS)
CLASSES = 10
CHANGE = 0.05  # standard deviation of what fine-tuning changed, over that of the parameter


def bert_base() -> Any:
    """The sizes of BERT-base: a vocabulary of 30,522, 12 blocks of width 768."""
    config: Any = transformers.BertConfig
    return config(num_labels=CLASSES)


def modern_bert_base(vocabulary: int) -> Any:
    """The sizes of ModernBERT-base with that vocabulary: 22 blocks of width 768, two thirds of them local."""
    marks = {"pad_token_id": 0, "bos_token_id": CLASS, "eos_token_id": SEPARATOR}
    same = {"cls_token_id": CLASS, "sep_token_id": SEPARATOR}
    config: Any = transformers.ModernBertConfig
    return config(vocab_size=vocabulary, num_labels=CLASSES, **marks, **same)


def write_text_checkpoints(folder: Path, config: Any, tasks: int) -> tuple[Path, list[Path]]:
    """Writes `pretrained` with a tokenizer and `tasks` classifiers that differ from it in every parameter."""
    torch.manual_seed(0)
    classifier: Any = transformers.AutoModelForSequenceClassification
    model = classifier.from_config(config).eval()
    _write_tokenizer(folder / "pretrained", config.vocab_size)
    model.base_model.save_pretrained(folder / "pretrained")
    paths = [folder / f"task{task}" for task in range(tasks)]
    pretrained = {name: weight.clone() for name, weight in model.base_model.state_dict().items()}
    for path in paths:
        _change(model, pretrained)
        model.save_pretrained(path)
    return folder / "pretrained", paths


def store_of(folder: Path, config: Any, tasks: int) -> tuple[Path, Path]:
    """A store of random fine-tunes of that encoder, and the first of them; made if it is not there."""
    if not (folder / "store" / MANIFEST_FILE).exists():
        pretrained, finetuned = write_text_checkpoints(folder, config, tasks)
        inputs = [TaskInput(path.name, path) for path in finetuned]
        build(pretrained, inputs, folder / "store", BuildOptions(format="bfloat16"))
    return folder / "store", folder / "task0"


@torch.no_grad()
def _change(model: Any, pretrained: dict[str, Tensor]) -> None:
    """Makes the model one that was fine-tuned from those parameters, with a head of its own."""
    for name, weight in model.base_model.state_dict().items():
        if weight.is_floating_point():
            before = pretrained[name]
            scale = (
                CHANGE * float(before.std()) or CHANGE * 0.02
            )  # of a bias that is 0: the others' deviation
            weight.copy_(before + scale * torch.randn_like(before))
    for name, weight in model.named_parameters():
        if not name.startswith(f"{model.base_model_prefix}."):
            weight.add_(0.02 * torch.randn_like(weight))


def _write_tokenizer(folder: Path, vocabulary: int) -> None:
    """BERT's marks, and a word for every id that is left."""
    folder.mkdir(parents=True)
    words = (f"w{row}" for row in range(FIRST_WORD, vocabulary))
    (folder / "vocab.txt").write_text("\n".join([*MARKS, *words]) + "\n")


def random_ids(lengths: Sequence[int], vocabulary: int, seed: int = 0) -> Iterator[Tensor]:
    """Yields the ids [n] of random texts of those lengths, between the two marks that a tokenizer adds."""
    generator = torch.Generator().manual_seed(seed)
    for length in lengths:
        ids = torch.randint(FIRST_WORD, vocabulary, (length,), generator=generator)
        ids[0], ids[-1] = CLASS, SEPARATOR
        yield ids


def as_text(ids: Tensor) -> str:
    """The text of which the tokenizer makes those ids."""
    return " ".join(f"w{word}" for word in ids[1:-1].tolist())
