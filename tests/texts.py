"""Small text encoders on disk, made by transformers itself, and texts as their tokens."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from mass_serve.backbone import Packed
from mass_serve.model_store.plan import TaskInput
from tests.models import perturb

VOCABULARY, MAX_TOKENS = 97, 80
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "max_position_embeddings": MAX_TOKENS,
}
_ALIKE = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "cls_token_id": 0, "sep_token_id": 2}
# By kind of model: what its configuration has.
CONFIGS: dict[str, dict[str, Any]] = {
    "Bert": SIZES,
    "Roberta": {**SIZES, "type_vocab_size": 1, "max_position_embeddings": MAX_TOKENS + 2},
    "XLMRoberta": {**SIZES, "type_vocab_size": 1, "max_position_embeddings": MAX_TOKENS + 2},
    "DistilBert": {
        **{"vocab_size": VOCABULARY, "dim": 48, "n_layers": 3, "n_heads": 4, "hidden_dim": 80},
        "max_position_embeddings": MAX_TOKENS,
    },
    "ModernBert": {**SIZES, **_ALIKE, "num_hidden_layers": 5, "local_attention": 16},
}
LENGTHS = (3, 17, 64, 1, 40, 17, MAX_TOKENS)


def make_model(kind: str, what: str = "Model", seed: int = 0, **changes: Any) -> Any:
    """A randomly initialised `BertForSequenceClassification` or the like, without zeros or ones in it."""
    config = getattr(transformers, f"{kind}Config")(**CONFIGS[kind] | changes)
    torch.manual_seed(seed)
    model: Any = getattr(transformers, f"{kind}{what}")(config).eval()
    perturb(model, seed, 0.1)
    return model


@dataclass(frozen=True)
class Texts:
    """Texts of several lengths, as a model of transformers and as one of ours takes them."""

    ids: list[Tensor]  # [n] each
    types: list[Tensor]

    @property
    def words(self) -> list[Tensor]:
        """Each text's words [n, 2]."""
        return [torch.stack(pair, dim=1) for pair in zip(self.ids, self.types, strict=True)]

    @property
    def packed(self) -> Packed:
        """All of them in one batch of ours."""
        return Packed.of(self.words)

    def padded(self, model: Any) -> dict[str, Tensor]:
        """All of them in one batch of transformers', padded to the longest."""
        length = max(map(len, self.ids))
        padding = model.config.pad_token_id or 0
        batch = {
            "input_ids": _padded(self.ids, length, padding),
            "attention_mask": _padded([torch.ones_like(ids) for ids in self.ids], length, 0),
        }
        if model.config.model_type == "bert":
            batch["token_type_ids"] = _padded(self.types, length, 0)
        return batch


def _padded(rows: list[Tensor], length: int, value: int) -> Tensor:
    return torch.stack([torch.nn.functional.pad(row, (0, length - len(row)), value=value) for row in rows])


def texts(lengths: tuple[int, ...] = LENGTHS, seed: int = 0, *, pairs: bool = False) -> Texts:
    """Random texts of those lengths; of pairs every second text is one, whose second half has the type 1."""
    generator = torch.Generator().manual_seed(seed)
    ids = [torch.randint(5, VOCABULARY, (length,), generator=generator) for length in lengths]
    types = [torch.zeros_like(own) for own in ids]
    for own in types[1::2] if pairs else []:
        own[len(own) // 2 :] = 1
    return Texts(ids, types)


def save_tokenizer(folder: Path) -> None:
    """BERT's marks, and a word for every id that is left."""
    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{row}" for row in range(5, VOCABULARY)))
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")


def replace_tokenizer(store: Path, content: bytes) -> None:
    """Writes another tokenizer into a store, and its hash into the manifest."""
    manifest, path = store / "manifest.json", store / "tokenizer.json"
    before, after = (hashlib.sha256(one).hexdigest() for one in (path.read_bytes(), content))
    path.write_bytes(content)
    manifest.write_text(manifest.read_text().replace(before, after))


def change_tokenizer(store: Path, **parts: object) -> None:
    """Gives a store's tokenizer other parts than it had."""
    content = json.loads((store / "tokenizer.json").read_bytes())
    replace_tokenizer(store, json.dumps(content | parts).encode())


@dataclass(frozen=True)
class Finetuned:
    """A pretrained model on disk, and classifiers fine-tuned from it on disk and in memory."""

    pretrained: Path
    models: dict[str, Any]
    tasks: tuple[TaskInput, ...]


NAMES = ("guard", "domain", "safety")
# Of what classifies tokens.
ENTITY_LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "date")


def finetuned(
    folder: Path,
    kind: str,
    names: tuple[str, ...] = NAMES,
    of_tokens: tuple[str, ...] = (),
    multi_label: tuple[str, ...] = (),
    **changes: Any,
) -> Finetuned:
    """A pretrained model and classifiers that were made of it: of texts, then of the tokens of texts.

    Those of `multi_label`, some of `names`, give a text any number of their labels.
    """
    base = make_model(kind, **changes)
    base.save_pretrained(folder / "pretrained")
    save_tokenizer(folder / "pretrained")
    models, tasks = {}, []
    for seed, name in enumerate((*names, *of_tokens), start=1):
        labels = ENTITY_LABELS if name in of_tokens else [f"{name} {row}" for row in range(2 + seed)]
        what = "ForTokenClassification" if name in of_tokens else "ForSequenceClassification"
        model = make_model(kind, what, seed, num_labels=len(labels), **changes)
        model.base_model.load_state_dict(base.state_dict(), strict=False)
        perturb(model.base_model, 100 + seed, 0.02)
        model.config.id2label = dict(enumerate(labels))
        if name in multi_label:
            model.config.problem_type = "multi_label_classification"
        model.save_pretrained(folder / name)
        models[name] = model
        tasks.append(TaskInput(name, folder / name))
    return Finetuned(folder / "pretrained", models, tuple(tasks))
