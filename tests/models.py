"""Two-layer, 32-wide CLIP models on disk, made by transformers itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
)

from mass_serve.model_store.plan import TaskInput

VISION = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "projection_dim": 16,
}
TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 50,
    "eos_token_id": 1,
    "bos_token_id": 0,
    "pad_token_id": 1,
}


def make_model(kind: str = "CLIPVisionModelWithProjection", seed: int = 0, **changes: Any) -> Any:
    """A randomly initialised model of one of the three classes, with biases that are not zero."""
    vision = VISION | changes
    torch.manual_seed(seed)
    if kind == "CLIPModel":
        dim = vision["projection_dim"]
        model: Any = CLIPModel(CLIPConfig(text_config=TEXT, vision_config=vision, projection_dim=dim))
    elif kind == "CLIPVisionModel":
        model = CLIPVisionModel(CLIPVisionConfig(**vision))
    else:
        model = CLIPVisionModelWithProjection(CLIPVisionConfig(**vision))
    perturb(model, seed, 0.02)
    return model


def perturb(model: Any, seed: int, scale: float) -> None:
    """Fine-tunes a model, as far as a store can tell."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)


def save_head(folder: Path, labels: int, width: int, seed: int = 0, linear: bool = False) -> None:
    """head.safetensors and labels.json beside a checkpoint."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {"weight": torch.randn(labels, width, generator=generator)}
    if linear:
        tensors["bias"] = torch.randn(labels, generator=generator)
    else:
        tensors["logit_scale"] = torch.tensor(100.0)
    save_file(tensors, folder / "head.safetensors")
    (folder / "labels.json").write_text(json.dumps([f"class {index}" for index in range(labels)]))


@dataclass(frozen=True)
class Suite:
    """A pretrained model and fine-tuned ones on disk."""

    pretrained: Path
    tasks: tuple[TaskInput, ...]


def make_suite(folder: Path, names: tuple[str, ...] = ("digits", "street", "signs"), **changes: Any) -> Suite:
    """Saves a pretrained model and one fine-tuned model with a head per name."""
    model = make_model(**changes)
    model.save_pretrained(folder / "pretrained")
    tasks = []
    for seed, name in enumerate(names, start=1):
        tuned = make_model(**changes)
        perturb(tuned, 100 + seed, 0.05)
        tuned.save_pretrained(folder / name)
        width = (VISION | changes)["projection_dim"]
        save_head(folder / name, 3 + seed, width, seed, linear=seed % 2 == 0)
        tasks.append(TaskInput(name, folder / name))
    return Suite(folder / "pretrained", tuple(tasks))
