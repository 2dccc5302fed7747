"""What is read of an adapter equals the formula of its kind, written out; PEFT is not needed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mass_serve.merging import ThinDelta
from mass_serve.model_store.readers.checkpoint import Checkpoint
from tests.models import Suite, save_head

LAYER = "vision_model.encoder.layers.{}."
PATCHES = "vision_model.embeddings.patch_embedding"
BIAS = LAYER.format(0) + "mlp.fc1.bias"
# Alpha over r of q_proj, of rank 4, and of fc1, of rank 6.
PLAIN = (8 / 4, 8 / 6)


@dataclass(frozen=True)
class Kind:
    """An adapter of q_proj and fc1 in every layer, and the scales s of both by its kind's formula."""

    scales: tuple[float, float] = PLAIN
    config: dict[str, Any] = field(default_factory=dict)
    has_patches: bool = False
    has_magnitudes: bool = False
    has_bias: bool = False


KINDS = {
    "LoRA": Kind(),
    "rsLoRA": Kind((8 / 4**0.5, 8 / 6**0.5), {"use_rslora": True}),
    "a pattern of alphas": Kind((8 / 4, 3 / 6), {"rank_pattern": {"fc1": 6}, "alpha_pattern": {"fc1": 3}}),
    "an alpha of 0": Kind((8 / 4, 0.0), {"alpha_pattern": {"mlp.fc1": 0}}),
    "a negative alpha": Kind((-3 / 4, -3 / 6), {"lora_alpha": -3}),
    "a convolution": Kind(has_patches=True),
    "DoRA": Kind(config={"use_dora": True}, has_magnitudes=True),
    "biases": Kind(config={"bias": "all"}, has_bias=True),
}


def tensors_of(kind: Kind) -> dict[str, Tensor]:
    """The tensors of an adapter, by PEFT's names without their prefix."""
    generator = torch.Generator().manual_seed(4)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    tensors = {}
    for layer in range(2):
        for module, (rows, columns), rank in (("self_attn.q_proj", (32, 32), 4), ("mlp.fc1", (64, 32), 6)):
            stem = f"{LAYER.format(layer)}{module}."
            tensors[f"{stem}lora_A.weight"] = normal(rank, columns)
            tensors[f"{stem}lora_B.weight"] = 0.02 * normal(rows, rank)
            if kind.has_magnitudes:
                tensors[f"{stem}lora_magnitude_vector"] = 1 + normal(rows).abs()
    if kind.has_patches:
        tensors[f"{PATCHES}.lora_A.weight"] = normal(4, 3, 8, 8)
        tensors[f"{PATCHES}.lora_B.weight"] = 0.02 * normal(32, 4, 1, 1)
    if kind.has_bias:
        tensors[BIAS] = normal(64)
    return tensors


def by_formula(kind: Kind, tensors: Mapping[str, Tensor], stem: str, scale: float, before: Tensor) -> Tensor:
    """Computes W + s B A, or m (W + s B A) / ||W + s B A||_row, in float64."""
    down, up = (tensors[f"{stem}.lora_{side}.weight"].double().flatten(1) for side in "AB")
    changed = before.double() + scale * up @ down
    if not kind.has_magnitudes:
        return changed
    magnitudes = tensors[f"{stem}.lora_magnitude_vector"].double()
    lengths = torch.linalg.vector_norm(changed, dim=1)
    scaled: Tensor = changed * (magnitudes / lengths)[:, None]
    return scaled


def expected(kind: Kind, tensors: Mapping[str, Tensor], base: Checkpoint) -> dict[str, Tensor]:
    """What the adapter makes of every parameter, in float64."""
    result = {name: base.parameter(name).double() for name in base.architecture.parameter_shapes()}
    for layer in range(2):
        qkv, fc1 = f"blocks.{layer}.attention.qkv.weight", f"blocks.{layer}.mlp.fc1.weight"
        stem = LAYER.format(layer)
        query = by_formula(kind, tensors, f"{stem}self_attn.q_proj", kind.scales[0], result[qkv][:32])
        result[qkv] = torch.cat([query, result[qkv][32:]])
        result[fc1] = by_formula(kind, tensors, f"{stem}mlp.fc1", kind.scales[1], result[fc1])
    if kind.has_patches:
        patches = "patch_embedding.weight"
        result[patches] = by_formula(kind, tensors, PATCHES, 8 / 4, result[patches])
    if kind.has_bias:
        result["blocks.0.mlp.fc1.bias"] = tensors[BIAS].double()
    return result


@pytest.mark.parametrize("name", KINDS)
def test_is_its_formula(name: str, suite: Suite, tmp_path: Path) -> None:
    kind = KINDS[name]
    tensors = tensors_of(kind)
    save_file(
        {f"base_model.model.{key}": tensor for key, tensor in tensors.items()},
        tmp_path / "adapter_model.safetensors",
    )
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": str(suite.pretrained)}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | kind.config))
    save_head(tmp_path, 4, 16)
    base = Checkpoint.open(suite.pretrained)
    tuned = base.adapted(tmp_path)
    for parameter, after in expected(kind, tensors, base).items():
        before = base.parameter(parameter)
        torch.testing.assert_close(tuned.parameter(parameter).double(), after, atol=1e-6, rtol=1e-6)
        change = tuned.change(parameter, before)
        changed = after - before.double()
        if before.ndim == 2:
            # But for DoRA, and matrices that it leaves alone, what is changed is known as thin factors.
            assert isinstance(change, ThinDelta) == (not kind.has_magnitudes or not changed.any())
        if isinstance(change, ThinDelta):
            vectors = change.singular_vectors()
            assert (vectors.rank == 0) == (not changed.any())
            change = (vectors.u * vectors.s) @ vectors.vh
        torch.testing.assert_close(change.double(), changed, atol=1e-6, rtol=1e-6)
