"""Exported folders as users load them: through transformers alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image
from torch import Tensor

from mass_serve.engine import Engine
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.store import Store


def built(models: Any, folder: Path, **options: Any) -> Store:
    """A store of models on disk, whatever they are."""
    return build(models.pretrained, models.tasks, folder, BuildOptions(force=True, **options))


def logits_of(folder: Path, class_name: str, inputs: Sequence[Any]) -> Tensor:
    """The logits [n, C] that transformers gives images or texts: of the class, or as the README has it."""
    if (folder / "README.md").exists():
        return _by_the_readme(folder, inputs)
    model = getattr(transformers, class_name).from_pretrained(folder).eval()
    with torch.inference_mode():
        logits: Tensor = model(**prepared(folder, inputs)).logits
    return logits


def prepared(folder: Path, inputs: Sequence[Any]) -> Any:
    """Images or texts as the folder's own processor or tokenizer prepares them."""
    if isinstance(inputs[0], Image.Image):
        processor: Any = transformers.AutoImageProcessor
        return processor.from_pretrained(folder)(list(inputs), return_tensors="pt")
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    return tokenizer(list(inputs), padding=True, truncation=True, return_tensors="pt")


def _by_the_readme(folder: Path, inputs: Sequence[Any]) -> Tensor:
    code = (folder / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {"folder": str(folder), "images": list(inputs), "texts": list(inputs)}
    exec(code, names)
    logits: Tensor = names["logits"]
    return logits


def served_logits(store: Store, task: str, inputs: Sequence[Any]) -> Tensor:
    """The logits that an engine gives the same for a task that is named."""
    engine = Engine.load(store.files.url, device="cpu")
    return torch.stack([answer.logits for answer in engine.classify(list(inputs), tasks=[task])])


def pictures(count: int = 3, seed: int = 0) -> list[Image.Image]:
    """Noise of several shapes."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(40 + 7 * i, 52 - 5 * i, 3) for i in range(count)]
    return [
        Image.fromarray(torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8).numpy())
        for shape in shapes
    ]
