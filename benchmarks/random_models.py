"""Checkpoints of real sizes with random weights, in the layout of Hugging Face's CLIP."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from mass_serve.model_store.backbone_spec import BackboneSpec, parameter_shapes

VIT_B_32 = BackboneSpec(
    image_size=224,
    patch_size=32,
    width=768,
    depth=12,
    num_attention_heads=12,
    mlp_width=3072,
    activation="quick_gelu",
    layer_norm_eps=1e-5,
    projection_dim=512,
)
CLASSES = 10

_RENAMED = {
    "class_embedding": "vision_model.embeddings.class_embedding",
    "patch_embedding.": "vision_model.embeddings.patch_embedding.",
    "position_embedding.": "vision_model.embeddings.position_embedding.",
    "pre_layernorm.": "vision_model.pre_layrnorm.",
    "post_layernorm.": "vision_model.post_layernorm.",
    "projection.": "visual_projection.",
    "blocks.": "vision_model.encoder.layers.",
    "attention.out.": "self_attn.out_proj.",
}


def write_checkpoints(folder: Path, spec: BackboneSpec, tasks: int) -> tuple[Path, list[Path]]:
    """Writes `pretrained` and `tasks` models fine-tuned from it, each with a head and labels."""
    generator = torch.Generator().manual_seed(0)
    pretrained = {name: _initial(name, shape, generator) for name, shape in parameter_shapes(spec).items()}
    _write(folder / "pretrained", spec, pretrained)
    finetuned = []
    for task in range(tasks):
        path = folder / f"task{task}"
        changed = {
            name: weight + 0.05 * weight.std() * torch.randn(weight.shape, generator=generator)
            for name, weight in pretrained.items()
        }
        _write(path, spec, changed)
        head = torch.randn(CLASSES, spec.embedding_width, generator=generator)
        save_file({"weight": head, "logit_scale": torch.tensor(30.0)}, path / "head.safetensors")
        (path / "labels.json").write_text(json.dumps([f"class {i}" for i in range(CLASSES)]))
        finetuned.append(path)
    return folder / "pretrained", finetuned


def _initial(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    noise = torch.randn(shape, generator=generator)
    if "layernorm" in name or "layer_norm" in name:
        return 0.02 * noise + (1.0 if name.endswith("weight") else 0.0)
    return 0.02 * noise


def _write(path: Path, spec: BackboneSpec, parameters: dict[str, Tensor]) -> None:
    path.mkdir(parents=True)
    tensors: dict[str, Tensor] = {}
    for name, tensor in parameters.items():
        renamed = name
        for ours, theirs in _RENAMED.items():
            renamed = renamed.replace(ours, theirs)
        if "attention.qkv" in renamed:
            for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                key = renamed.replace("attention.qkv", f"self_attn.{part}_proj")
                tensors[key] = rows.contiguous()
        elif name.startswith("patch_embedding"):
            tensors[renamed] = tensor.view(-1, 3, spec.patch_size, spec.patch_size)
        else:
            tensors[renamed] = tensor
    save_file(tensors, path / "model.safetensors")
    config = {
        "architectures": ["CLIPVisionModelWithProjection"],
        "model_type": "clip_vision_model",
        "hidden_size": spec.width,
        "intermediate_size": spec.mlp_width,
        "num_hidden_layers": spec.depth,
        "num_attention_heads": spec.num_attention_heads,
        "image_size": spec.image_size,
        "patch_size": spec.patch_size,
        "projection_dim": spec.projection_dim,
        "hidden_act": spec.activation,
        "layer_norm_eps": spec.layer_norm_eps,
    }
    (path / "config.json").write_text(json.dumps(config))
