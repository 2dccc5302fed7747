"""Encoders, experts and mixes of random numbers, on the device at once: only their sizes are real."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor

from mass_serve.backbone import EncoderConfig, ExpertBank, ExpertSet
from mass_serve.backbone.expert_bank import Sides
from mass_serve.kernels import TaskBlocks

VITS = {
    "B/32": EncoderConfig(224, 32, 768, 12, 12, 3072, projection_dim=512),
    "B/16": EncoderConfig(224, 16, 768, 12, 12, 3072, projection_dim=512),
    "L/14": EncoderConfig(224, 14, 1024, 24, 16, 4096, projection_dim=768),
}
Form = Literal["low_rank", "materialised", "base_only"]


@dataclass(frozen=True)
class Mix:
    """A batch: how many samples of which sets, in order."""

    expert_sets: list[ExpertSet]
    offsets: list[int]


def parameter_shapes(config: EncoderConfig) -> dict[str, tuple[int, ...]]:
    """Every parameter of an encoder."""
    width, hidden = config.width, config.mlp_width
    shapes: dict[str, tuple[int, ...]] = {
        "patch_embedding.weight": (width, 3 * config.patch_size**2),
        "class_embedding": (width,),
        "position_embedding.weight": (config.num_tokens, width),
    }
    linears = {
        "attention.qkv": (3 * width, width),
        "attention.out": (width, width),
        "mlp.fc1": (hidden, width),
        "mlp.fc2": (width, hidden),
    }
    norms = ["pre_layernorm", "post_layernorm"]
    for i in range(config.depth):
        norms += [f"blocks.{i}.layer_norm1", f"blocks.{i}.layer_norm2"]
        for linear, shape in linears.items():
            shapes |= {f"blocks.{i}.{linear}.weight": shape, f"blocks.{i}.{linear}.bias": shape[:1]}
    for norm in norms:
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    if config.projection_dim:
        shapes["projection.weight"] = (config.projection_dim, width)
    return shapes


def random_encoder(config: EncoderConfig, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    """Weights of a sensible scale."""
    weights = {}
    for name, shape in parameter_shapes(config).items():
        noise = torch.randn(shape, device=device, dtype=torch.float32) / shape[-1] ** 0.5
        is_norm = "norm" in name and name.endswith("weight")
        weights[name] = (noise + 1.0 if is_norm else noise).to(dtype)
    return weights


def random_bank(config: EncoderConfig, weights: dict[str, Tensor], tasks: int) -> ExpertBank:
    """Blocks of rank 1/T for every linear, u laid out as the fused kernels want it."""
    bank = ExpertBank(config, weights, tasks)
    for name in config.linears:
        weight = weights[f"{name}.weight"]
        d_out, d_in = weight.shape
        rank = max(1, min(d_out, d_in) // tasks)
        u = _scaled_noise(weight, tasks, rank, d_out).transpose(1, 2)
        bank.blocks[name] = TaskBlocks(u, _scaled_noise(weight, tasks, rank, d_in))
    return bank


def random_expert_set(bank: ExpertBank, tasks: tuple[int, ...], form: Form) -> ExpertSet:
    """A set of those tasks; its numbers are random, its tensors have the sizes of a real one."""
    vectors = {
        name: t for name, t in bank.pretrained.items() if name.removesuffix(".weight") not in bank.blocks
    }
    cores: dict[str, Tensor] = {}
    sides: dict[str, Sides] = {}
    weights: dict[str, Tensor] = {}
    for name, blocks in bank.blocks.items():
        weight, rank = bank.pretrained[f"{name}.weight"], len(tasks) * blocks.vh.shape[1]
        if form == "materialised":
            weights[name] = weight.clone()
        elif form == "low_rank" and len(tasks) == 1:
            cores[name] = torch.rand(rank, device=weight.device).to(weight.dtype)
        elif form == "low_rank":
            sides[name] = (
                _scaled_noise(weight, rank, weight.shape[1]),
                _scaled_noise(weight, rank, len(weight)),
            )
    return ExpertSet(tasks, vectors, cores, weights, sides, form == "materialised")


def random_mix(bank: ExpertBank, batch: int, set_size: int, sets: int, form: Form) -> Mix:
    """`batch` samples spread evenly over `sets` different sets of `set_size` tasks."""
    possible = list(combinations(range(bank.num_tasks), set_size))
    step = max(1, len(possible) // sets)
    count = min(sets, batch, len(possible))
    expert_sets = [random_expert_set(bank, possible[i * step % len(possible)], form) for i in range(count)]
    return Mix(expert_sets, [batch * i // count for i in range(count + 1)])


def multiply_adds(config: EncoderConfig, batch: int) -> int:
    """Multiply-accumulates of a whole dense forward pass, attention included."""
    tokens, width = config.num_tokens, config.width
    block = tokens * width * (4 * width + 2 * config.mlp_width) + 2 * tokens**2 * width
    patches = (tokens - 1) * width * 3 * config.patch_size**2
    return batch * (config.depth * block + patches)


def _scaled_noise(like: Tensor, *shape: int) -> Tensor:
    noise = torch.randn(shape, device=like.device, dtype=torch.float32)
    return noise.mul_(float(shape[-1]) ** -0.5).to(like.dtype)


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """`|found - wanted| / |wanted|`"""
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


def sets_of(mix: Mix) -> Sequence[tuple[int, ...]]:
    """The tasks of each sample, in order."""
    spans = zip(mix.expert_sets, mix.offsets, mix.offsets[1:], strict=False)
    return [own.tasks for own, start, stop in spans for _ in range(stop - start)]
