"""Processor time of an answer: in each mode, with the task named, and of a model alone in transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import BertForSequenceClassification

from examples.from_packages.commands import MODES
from examples.from_packages.timing import least_times
from examples.text_demo.finetune import load_tokenizer
from mass_serve.engine import Engine

BATCHES = (1, 32)


def latencies(store: Path, model: Path, texts: Path) -> dict[str, dict[str, float]]:
    """Milliseconds of processor time for a text, in batches of each size, by what answers.

    `model` is a fine-tuned model's folder, and `texts` has the held-out texts of all tasks.
    """
    dense: Any = BertForSequenceClassification.from_pretrained(model)
    dense.eval()
    tokenizer = load_tokenizer(model)
    engines = {mode: Engine.load(str(store), device="cpu", dtype="float32", mode=mode) for mode in MODES}
    mixed = _mixed(texts, max(BATCHES))

    def alone(count: int) -> object:
        return dense(**tokenizer(mixed[:count], padding=True, return_tensors="pt")).logits

    variants: dict[str, Callable[[int], object]] = {
        "individual": alone,
        "task named": lambda count: engines["exact"].classify(mixed[:count], [model.name]),
        "each": lambda count: engines["exact"].classify(mixed[:count], answer="each"),
    }
    for mode, engine in engines.items():
        variants[mode] = lambda count, engine=engine: engine.classify(mixed[:count])  # type: ignore[misc]
    with torch.inference_mode():
        return {str(count): least_times(variants, count) for count in BATCHES}


def memory(store: Path, models: list[Path]) -> dict[str, int]:
    """Bytes on disk and in memory: of the store, and of the models on their own."""
    engine = Engine.load(str(store), device="cpu", dtype="float32", mode="exact")
    return {
        "store": sum(path.stat().st_size for path in store.rglob("*") if path.is_file()),
        "models": sum((model / "model.safetensors").stat().st_size for model in models),
        "engine": sum(engine.nbytes.values()),
        "encoder": engine.nbytes["pretrained"],
        "tasks": len(models),
    }


def _mixed(texts: Path, count: int) -> list[str]:
    """The first texts of every task, all tasks in turn."""
    files = sorted(texts.glob("*.jsonl"))
    of_tasks = [[json.loads(line)["text"] for line in file.read_text().splitlines()] for file in files]
    return [text for turn in zip(*of_tasks, strict=False) for text in turn][:count]
