"""Processor time of an answer: in each mode, with the task named, and of a model alone in transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import Dinov2ForImageClassification

from examples.from_packages.commands import MODES
from examples.from_packages.timing import least_times
from mass_serve.engine import Engine

BATCHES = (1, 32)


def latencies(store: Path, model: Path, pictures: Path) -> dict[str, dict[str, float]]:
    """Milliseconds of processor time for an image, in batches of each size, by what answers.

    `model` is a fine-tuned model's folder, and `pictures` has the held-out pictures of all tasks.
    """
    dense: Any = Dinov2ForImageClassification.from_pretrained(model)
    dense.eval()
    engines = {mode: Engine.load(str(store), device="cpu", dtype="float32", mode=mode) for mode in MODES}
    images = _mixed(pictures, max(BATCHES))
    variants: dict[str, Callable[[int], object]] = {
        "individual": lambda count: dense(_pixels(engines["exact"], images[:count])),
        "task named": lambda count: _answers(engines["exact"], images[:count], model.name),
    }
    for mode, engine in engines.items():
        variants[mode] = lambda count, engine=engine: _answers(engine, images[:count])  # type: ignore[misc]
    with torch.inference_mode():
        return {str(count): least_times(variants, count) for count in BATCHES}


def _mixed(pictures: Path, count: int) -> list[Image.Image]:
    """The first picture of every label, all tasks in turn."""
    first = [next(iter(sorted(label.glob("*.png")))) for label in sorted(pictures.glob("*/*"))]
    return [Image.open(path).convert("RGB") for path in first[:: max(1, len(first) // count)]][:count]


def _pixels(engine: Engine, images: list[Image.Image]) -> torch.Tensor:
    return torch.stack([engine.preprocessing.preprocess(image) for image in images])


def _answers(engine: Engine, images: list[Image.Image], task: str | None = None) -> object:
    return engine.classify(images, None if task is None else [task])
