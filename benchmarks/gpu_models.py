"""Encoders, experts and mixes of random numbers, on the device at once: only their sizes are real."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor

from mass_serve.backbone import Architecture, Block, ExpertBank, ExpertSet, PatchEmbedding, Pooling
from mass_serve.backbone.architecture import bias_of, weight_of
from mass_serve.kernels import BaseOnly, Delta, FoldedSides, MaterialisedWeight, OneTask
from mass_serve.merging import TaskSingularVectors

BASE, LARGE = Block(768, 12, 3072, "quick_gelu", 1e-5), Block(1024, 16, 4096, "quick_gelu", 1e-5)
VITS = {
    "B/32": Architecture(PatchEmbedding(224, 32), BASE, 12, Pooling(512)),
    "B/16": Architecture(PatchEmbedding(224, 16), BASE, 12, Pooling(512)),
    "L/14": Architecture(PatchEmbedding(224, 14), LARGE, 24, Pooling(768)),
}
Form = Literal["low_rank", "materialised", "base_only"]


@dataclass(frozen=True)
class Mix:
    """A batch: how many samples of which sets, in order."""

    expert_sets: list[ExpertSet]
    offsets: list[int]


def random_encoder(architecture: Architecture, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    """Weights of a sensible scale."""
    ones, weights = set(map(weight_of, architecture.norms)), {}
    for name, shape in architecture.parameter_shapes().items():
        noise = torch.randn(shape, device=device, dtype=torch.float32) / shape[-1] ** 0.5
        weights[name] = (noise + 1.0 if name in ones else noise).to(dtype)
    return weights


def random_bank(architecture: Architecture, weights: dict[str, Tensor], tasks: int) -> ExpertBank:
    """Blocks of rank 1/T for every linear."""
    parameters = [weight_of(linear) for linear in architecture.linears]
    ranks = {parameter: max(1, min(weights[parameter].shape) // tasks) for parameter in parameters}
    bank = ExpertBank(architecture, weights, [ranks] * tasks)
    # On the CPU, where it is seen that they are nothing: weights may be on no device at all.
    dense = {
        name: torch.zeros_like(weight, device="cpu") for name, weight in weights.items() if name not in ranks
    }
    for task in range(tasks):
        bank.set_task(
            task, {name: _random_vectors(weights[name], rank) for name, rank in ranks.items()}, dense
        )
    return bank


def random_expert_set(bank: ExpertBank, tasks: tuple[int, ...], form: Form) -> ExpertSet:
    """A set of those tasks; its numbers are random, its tensors have the sizes of a real one."""
    vectors = {name: t for name, t in bank.pretrained.items() if name not in bank.ranks}
    deltas = {
        linear: _random_delta(bank, linear, tasks, form, vectors.get(bias_of(linear)))
        for linear in bank.architecture.linears
    }
    return ExpertSet(tasks, vectors, deltas, form == "materialised", frozenset())


def _random_delta(
    bank: ExpertBank, linear: str, tasks: tuple[int, ...], form: Form, bias: Tensor | None
) -> Delta:
    weight, ranks = bank.pretrained[weight_of(linear)], bank.ranks[weight_of(linear)]
    rank = sum(ranks[task] for task in tasks)
    if form == "base_only":
        return BaseOnly(bias)
    if form == "materialised":
        return MaterialisedWeight(weight.clone(), bias)
    if len(tasks) == 1:
        block = bank.tasks.get(tasks[0]).blocks[weight_of(linear)]
        return OneTask(block, torch.rand(rank, device=weight.device).to(weight.dtype), bias)
    d_out, d_in = weight.shape
    return FoldedSides(_scaled_noise(weight, rank, d_in), _scaled_noise(weight, rank, d_out), bias)


def random_mix(bank: ExpertBank, batch: int, set_size: int, sets: int, form: Form) -> Mix:
    """`batch` samples spread evenly over `sets` different sets of `set_size` tasks."""
    possible = list(combinations(range(bank.num_tasks), set_size))
    step = max(1, len(possible) // sets)
    count = min(sets, batch, len(possible))
    expert_sets = [random_expert_set(bank, possible[i * step % len(possible)], form) for i in range(count)]
    return Mix(expert_sets, [batch * i // count for i in range(count + 1)])


def multiply_adds(architecture: Architecture, batch: int) -> int:
    """Multiply-accumulates of a whole dense forward pass, attention included."""
    tokens, width = architecture.num_tokens, architecture.width
    block = tokens * width * (4 * width + 2 * architecture.block.mlp_width) + 2 * tokens**2 * width
    patches = (tokens - 1) * width * architecture.patches.patch_width
    return batch * (architecture.depth * block + patches)


def _random_vectors(weight: Tensor, rank: int) -> TaskSingularVectors:
    d_out, d_in = weight.shape
    s = torch.ones(rank, device=weight.device)
    return TaskSingularVectors(_scaled_noise(weight, rank, d_out).T, s, _scaled_noise(weight, rank, d_in))


def _scaled_noise(like: Tensor, *shape: int) -> Tensor:
    noise = torch.randn(shape, device=like.device, dtype=torch.float32)
    return noise.mul_(float(shape[-1]) ** -0.5).to(like.dtype)


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """`|found - wanted| / |wanted|`"""
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())
