"""Checkpoints of real sizes with random weights, in the layout of Hugging Face's CLIP."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from mass_serve.backbone.architecture import Architecture, Block, PatchEmbedding, Pooling
from mass_serve.model_store.readers.clip import ClipVision
from mass_serve.model_store.readers.family import Description

VIT_B_32 = Architecture(
    PatchEmbedding(224, 32), Block(768, 12, 3072, "quick_gelu", 1e-5), depth=12, pooling=Pooling(512)
)
CLASSES = 10


def write_checkpoints(
    folder: Path, architecture: Architecture, tasks: int, decaying: bool = False
) -> tuple[Path, list[Path]]:
    """Writes `pretrained` and `tasks` models fine-tuned from it, each with a head and labels.

    The singular values of what fine-tuning changed are nearly alike, or `decaying` as `1 / sqrt(i)`.
    """
    generator = torch.Generator().manual_seed(0)
    pretrained = random_parameters(architecture, generator)
    _write(folder / "pretrained", architecture, pretrained)
    finetuned = []
    for task in range(tasks):
        path = folder / f"task{task}"
        changed = {
            name: weight + 0.05 * weight.std() * _noise(weight.shape, decaying, generator)
            for name, weight in pretrained.items()
        }
        _write(path, architecture, changed)
        head = torch.randn(CLASSES, architecture.embedding_dim, generator=generator)
        save_file({"weight": head, "logit_scale": torch.tensor(30.0)}, path / "head.safetensors")
        (path / "labels.json").write_text(json.dumps([f"class {i}" for i in range(CLASSES)]))
        finetuned.append(path)
    return folder / "pretrained", finetuned


def random_parameters(architecture: Architecture, generator: torch.Generator) -> dict[str, Tensor]:
    """Draws every parameter of an encoder, by its canonical name."""
    shapes = architecture.parameter_shapes()
    return {name: _initial(name, shape, generator) for name, shape in shapes.items()}


def _initial(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    noise = 0.02 * torch.randn(shape, generator=generator)
    is_gain = len(shape) == 1 and name.endswith(".weight")  # of a LayerNorm
    return noise + 1.0 if is_gain else noise


def _noise(shape: torch.Size, decaying: bool, generator: torch.Generator) -> Tensor:
    noise = torch.randn(shape, generator=generator)
    if not decaying or len(shape) != 2:
        return noise
    scales = torch.arange(1, min(shape) + 1) ** -0.5
    left = torch.randn(shape[0], len(scales), generator=generator) * scales
    decayed: Tensor = left @ noise[: len(scales)] / scales.norm()
    return decayed


def _write(path: Path, architecture: Architecture, parameters: dict[str, Tensor]) -> None:
    path.mkdir(parents=True)
    tensors: dict[str, Tensor] = {}
    for name, source in ClipVision().sources(architecture, Description(path, {}, {}, None)).items():
        parts = parameters[name].chunk(len(source.keys))
        tensors |= {key: part.reshape(source.shape) for key, part in zip(source.keys, parts, strict=True)}
    save_file(tensors, path / "model.safetensors")
    embedding, block = architecture.patches, architecture.block
    config = {
        "architectures": ["CLIPVisionModelWithProjection"],
        "model_type": "clip_vision_model",
        "hidden_size": block.width,
        "intermediate_size": block.mlp_width,
        "num_hidden_layers": architecture.depth,
        "num_attention_heads": block.num_attention_heads,
        "image_size": embedding.image_size,
        "patch_size": embedding.patch_size,
        "projection_dim": architecture.pooling.projection_dim,
        "hidden_act": block.activation,
        "layer_norm_eps": block.layer_norm_eps,
    }
    (path / "config.json").write_text(json.dumps(config))
