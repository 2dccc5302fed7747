"""Fine-tunes MiniLM for one task, as its users do: all weights, under transformers' classifier of sequences.

Saved are the files that the library writes: `BertForSequenceClassification.save_pretrained` and the
tokenizer's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer, BertForSequenceClassification

from examples.from_packages.training import Report, silent

MOST_TOKENS = 40
BATCH = 16
_REPORTED_STEPS = 20


@dataclass(frozen=True)
class Plan:
    """How long and how fast to learn."""

    steps: int = 40
    rate: float = 8e-5
    classifier_rate: float = 5e-4
    warmup: float = 0.1
    seed: int = 5


@dataclass(frozen=True)
class Examples:
    """The tokens of each of N texts, the number of each one's label [N], and the labels' names."""

    tokens: list[list[int]]
    targets: Tensor
    labels: tuple[str, ...]


def read_examples(file: Path, tokenizer: Any) -> Examples:
    """The texts of a file of JSON lines, labels in alphabetical order."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    labels = tuple(sorted({row["label"] for row in rows}))
    tokens = tokenizer([row["text"] for row in rows], truncation=True, max_length=MOST_TOKENS)["input_ids"]
    return Examples(tokens, torch.tensor([labels.index(row["label"]) for row in rows]), labels)


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model's folder."""
    return AutoTokenizer.from_pretrained(folder)


def with_classifier(pretrained: Path, examples: Examples) -> Any:
    """The pretrained encoder under a classifier that logistic regression fits to its features."""
    names = dict(enumerate(examples.labels))
    model: Any = BertForSequenceClassification.from_pretrained(
        pretrained, id2label=names, label2id={name: number for number, name in names.items()}
    )
    model.eval()
    fit = LogisticRegression(C=1.0, max_iter=500).fit(features(model, examples).numpy(), examples.targets)
    weight, bias = torch.from_numpy(fit.coef_).float(), torch.from_numpy(fit.intercept_).float()
    if len(weight) == 1:  # of two classes it keeps the difference alone
        weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    with torch.no_grad():
        model.classifier.weight.copy_(weight)
        model.classifier.bias.copy_(bias)
    return model


def features(model: Any, examples: Examples) -> Tensor:
    """What the classifier sees of each text, [N, D]."""
    return _in_order(examples, lambda batch: model.bert(**batch).pooler_output)


def accuracy(model: Any, examples: Examples) -> float:
    """The share of the texts that get their label."""
    logits = _in_order(examples, lambda batch: model(**batch).logits)
    return float((logits.argmax(dim=-1) == examples.targets).float().mean())


def finetune(model: Any, task: str, examples: Examples, plan: Plan, report: Report = silent) -> Any:
    """The model after fine-tuning all of its weights."""
    torch.manual_seed(plan.seed)
    model.train()
    optimiser = _optimiser(model, plan)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser,
        [group["lr"] for group in optimiser.param_groups],
        total_steps=plan.steps,
        pct_start=plan.warmup,
        cycle_momentum=False,
    )
    for step in range(1, plan.steps + 1):
        rows = torch.randint(len(examples.targets), (BATCH,)).tolist()
        logits = model(**_padded([examples.tokens[row] for row in rows])).logits
        loss = cross_entropy(logits, examples.targets[rows])
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % _REPORTED_STEPS == 0:
            report(f"{task}: step {step} of {plan.steps}, loss {loss.item():.3f}")
    return model.eval()


def _optimiser(model: Any, plan: Plan) -> torch.optim.Optimizer:
    encoder = [p for name, p in model.named_parameters() if not name.startswith("classifier")]
    groups = [
        {"params": encoder, "lr": plan.rate},
        {"params": list(model.classifier.parameters()), "lr": plan.classifier_rate},
    ]
    # Decay would change the embedding of every word, those too that no text of the task has.
    return torch.optim.AdamW(groups, weight_decay=0.0)


def _in_order(examples: Examples, run: Any) -> Tensor:
    """What `run` makes of the texts, rows in their order; texts of a length share a batch."""
    by_length = sorted(range(len(examples.tokens)), key=lambda row: len(examples.tokens[row]))
    with torch.inference_mode():
        parts = [run(_padded([examples.tokens[row] for row in rows])) for rows in _batches(by_length)]
    return torch.cat(parts)[torch.tensor(by_length).argsort()]


def _batches(rows: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(rows), BATCH):
        yield rows[start : start + BATCH]


def _padded(tokens: list[list[int]]) -> dict[str, Tensor]:
    """Token numbers and mask, [B, longest]."""
    longest = max(map(len, tokens))
    return {
        "input_ids": torch.tensor([row + [0] * (longest - len(row)) for row in tokens]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in tokens]),
    }
