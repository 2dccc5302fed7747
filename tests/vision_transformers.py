"""Small ViT, DeiT and DINOv2 models on disk, made by transformers itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from mass_serve.model_store.plan import TaskInput
from tests.models import perturb, save_head

SIZES = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
CONFIGS = {
    "ViT": "ViTConfig",
    "DeiT": "DeiTConfig",
    "Dinov2With": "Dinov2WithRegistersConfig",
    "Dinov2": "Dinov2Config",
}
IMAGES = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.25, 0.2, 0.3], "resample": 3}


def make_model(kind: str, seed: int = 0, **changes: Any) -> Any:
    """A randomly initialised model of that class, with nothing in it that is zero or one."""
    config = next(name for prefix, name in CONFIGS.items() if kind.startswith(prefix))
    sizes = SIZES | ({} if kind.startswith("Dinov2") else {"intermediate_size": 64}) | changes
    torch.manual_seed(seed)
    model: Any = getattr(transformers, kind)(getattr(transformers, config)(**sizes)).eval()
    perturb(model, seed, 0.05)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lambda1" in name:
                parameter.copy_(3 * torch.randn(parameter.shape))
            elif "token" in name or "position" in name:
                parameter.copy_(torch.randn(parameter.shape))
    return model


def save_model(model: Any, folder: Path, crop: int = 32) -> Path:
    """Saves a model, and beside it that its images are cut to `crop` pixels."""
    model.save_pretrained(folder)
    config = {"size": {"shortest_edge": crop}, "crop_size": {"height": crop, "width": crop}, **IMAGES}
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    return folder


@dataclass(frozen=True)
class Finetuned:
    """A pretrained model on disk, and fine-tuned ones on disk and in memory."""

    pretrained: Path
    models: dict[str, Any]
    tasks: tuple[TaskInput, ...]


def finetuned(
    folder: Path, kind: str, classifier: str | None = None, crop: int = 32, **changes: Any
) -> Finetuned:
    """A pretrained model and three fine-tuned ones, of the class `classifier` or with a head file."""
    pretrained = save_model(make_model(kind, **changes), folder / "pretrained", crop)
    models, tasks = {}, []
    for seed, name in enumerate(("digits", "street", "signs"), start=1):
        model = make_model(classifier or kind, **changes, **({"num_labels": 3 + seed} if classifier else {}))
        perturb(model, 100 + seed, 0.02)
        save_model(model, folder / name, crop)
        if classifier is None:
            save_head(folder / name, 3 + seed, model.config.hidden_size, seed, linear=seed % 2 == 0)
        models[name] = model
        tasks.append(TaskInput(name, folder / name))
    return Finetuned(pretrained, models, tuple(tasks))
