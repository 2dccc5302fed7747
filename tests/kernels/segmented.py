"""Random segmented linears, and their outcome written out in float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from mass_serve.kernels import (
    BaseOnly,
    Delta,
    FoldedSides,
    MaterialisedWeight,
    OneTask,
    SeveralTasks,
    TaskBlocks,
)
from mass_serve.kernels.activations import Activation

TASKS = 5
# Of the tasks, in one matrix: none, one, odd, less than a tile and more, at the ends and between.
RAGGED_RANKS = [(5, 0, 1, 38, 16), (0, 17, 0, 1, 3), (31, 2, 0, 0, 0), (0, 0, 0, 0, 0)]


def random_blocks(d_out: int, d_in: int, rank: int | Sequence[int], dtype: torch.dtype) -> TaskBlocks:
    """Blocks of TASKS tasks, of a size that neither drowns nor is drowned by the base product.

    All are of one `rank`, or each of its own.
    """
    ranks = (rank,) * TASKS if isinstance(rank, int) else tuple(rank)
    u_t = torch.randn(sum(ranks), d_out, dtype=torch.float64) / d_out**0.5
    vh = torch.randn(sum(ranks), d_in, dtype=torch.float64) / d_in**0.5
    return TaskBlocks(u_t.to(dtype), vh.to(dtype), ranks)


def random_delta(
    expert_set: tuple[int, ...], blocks: TaskBlocks, dtype: torch.dtype
) -> OneTask | SeveralTasks:
    """A low-rank segment's change with a random core."""
    d_out, k = blocks.u_t.shape[1], sum(blocks.ranks[task] for task in expert_set)
    if len(expert_set) == 1:
        core = torch.rand(k).to(dtype)
        return OneTask(expert_set[0], core, torch.randn(d_out).to(dtype))
    left, right = torch.randn(2, k, k) / max(1, k) ** 0.5
    return SeveralTasks(expert_set, left, right, torch.randn(d_out).to(dtype))


def dense_weight(weight: Tensor, blocks: TaskBlocks, delta: Delta) -> Tensor:
    """W + U C V in float64, written out, with C diagonal or the product of its factors."""
    match delta:
        case MaterialisedWeight():
            return delta.weight.double()
        case BaseOnly():
            return weight.double()
        case FoldedSides():
            return weight.double() + delta.left.double().T @ delta.right.double()
        case OneTask(task=task):
            u, vh = _side_by_side(blocks, [task])
            return weight.double() + u @ delta.singular_values.double().diag() @ vh
        case SeveralTasks(tasks=tasks):
            u, vh = _side_by_side(blocks, tasks)
            return weight.double() + u @ delta.left.double() @ delta.right.double() @ vh


def _side_by_side(blocks: TaskBlocks, tasks: Sequence[int]) -> tuple[Tensor, Tensor]:
    """U [d_out, K] and V [K, d_in] of the tasks in float64."""
    first = [sum(blocks.ranks[:task]) for task in tasks]
    rows = [first[i] + row for i, task in enumerate(tasks) for row in range(blocks.ranks[task])]
    return blocks.u_t[rows].double().T, blocks.vh[rows].double()


def expected(
    x: Tensor, weight: Tensor, blocks: TaskBlocks, deltas: Sequence[Delta], rows: Sequence[int]
) -> Tensor:
    """The segmented product in float64, before any activation."""
    parts = []
    for delta, (start, stop) in zip(deltas, pairwise(rows), strict=True):
        y = x[start:stop].double() @ dense_weight(weight, blocks, delta).T
        parts.append(y if delta.bias is None else y + delta.bias.double())
    return torch.cat(parts)


def activated(y: Tensor, activation: Activation | None) -> Tensor:
    """The activation by its textbook formula."""
    match activation:
        case None:
            return y
        case "quick_gelu":
            return y * torch.sigmoid(1.702 * y)
        case "gelu":
            return 0.5 * y * (1 + torch.erf(y / 2**0.5))
        case "gelu_tanh":
            return 0.5 * y * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (y + 0.044715 * y**3)))
        case "silu":
            return y * torch.sigmoid(y)


@dataclass(frozen=True)
class Case:
    """The arguments of one segmented linear."""

    x: Tensor
    weight: Tensor
    blocks: TaskBlocks
    deltas: list[Delta]
    rows: tuple[int, ...]

    @classmethod
    def random(
        cls,
        rows: tuple[int, ...],
        d_out: int,
        d_in: int,
        rank: int | Sequence[int],
        dtype: torch.dtype,
        tasks: int = 3,
    ) -> Case:
        """Low-rank segments of one to `tasks` tasks; every fifth base only."""
        torch.manual_seed(d_out + d_in)
        sets = [((i % TASKS,), (0, 1 + i % 4), (0, 2, 4))[i % tasks] for i in range(len(rows) - 1)]
        blocks = random_blocks(d_out, d_in, rank, dtype)
        deltas: list[Delta] = [random_delta(expert_set, blocks, dtype) for expert_set in sets]
        for i in range(4, len(deltas), 5):
            deltas[i] = BaseOnly(deltas[i].bias)
        x, weight = torch.randn(rows[-1], d_in), torch.randn(d_out, d_in) / d_in**0.5
        return cls(x.to(dtype), weight.to(dtype), blocks, deltas, rows)

    def to(self, device: torch.device) -> Case:
        """The same on another device."""
        blocks = TaskBlocks(self.blocks.u_t.to(device), self.blocks.vh.to(device), self.blocks.ranks)
        deltas = [_delta_to(delta, device) for delta in self.deltas]
        return Case(self.x.to(device), self.weight.to(device), blocks, deltas, self.rows)

    def expected(self) -> Tensor:
        """The outcome in float64."""
        return expected(self.x, self.weight, self.blocks, self.deltas, self.rows)


def _delta_to(delta: Delta, device: torch.device) -> Delta:
    moved: dict[str, Any] = {
        n: part.to(device) if isinstance(part, Tensor) else part for n, part in vars(delta).items()
    }
    return type(delta)(**moved)
