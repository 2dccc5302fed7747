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
    SmallSides,
    TaskBlock,
)
from mass_serve.kernels.activation_names import Activation
from mass_serve.kernels.packed_rows import Bits, PackedRows, Rows, numbers_of

TASKS = 5
# Of the tasks, in one matrix: none, one, odd, less than a tile and more, at the ends and between.
RAGGED_RANKS = [(5, 0, 1, 38, 16), (0, 17, 0, 1, 3), (31, 2, 0, 0, 0), (0, 0, 0, 0, 0)]


def random_blocks(d_out: int, d_in: int, rank: int | Sequence[int], dtype: torch.dtype) -> list[TaskBlock]:
    """Blocks of TASKS tasks, of a size that neither drowns nor is drowned by the base product.

    All are of one `rank`, or each of its own; one of rank 0 stands for a matrix that was left alone.
    """
    ranks = (rank,) * TASKS if isinstance(rank, int) else tuple(rank)
    u_t = torch.randn(sum(ranks), d_out, dtype=torch.float64) / d_out**0.5
    vh = torch.randn(sum(ranks), d_in, dtype=torch.float64) / d_in**0.5
    sides = zip(u_t.to(dtype).split(list(ranks)), vh.to(dtype).split(list(ranks)), strict=True)
    return [TaskBlock(*own) for own in sides]


def in_dtype(block: TaskBlock, dtype: torch.dtype) -> TaskBlock:
    """The numbers of a block in another dtype."""
    return TaskBlock(numbers_of(block.u_t, dtype), numbers_of(block.vh, dtype))


def packed(block: TaskBlock, bits: Bits) -> TaskBlock:
    """Nearly the same directions in few bits."""
    most = (1 << bits - 1) - 1

    def rounded(rows: Rows) -> PackedRows:
        assert isinstance(rows, Tensor)
        largest = rows.float().abs().amax(dim=1, keepdim=True)
        return PackedRows.of((rows.float() / largest * most).round().to(torch.int8), bits)

    return TaskBlock(rounded(block.u_t), rounded(block.vh))


def partly_packed(blocks: Sequence[TaskBlock]) -> list[TaskBlock]:
    """Blocks of TASKS tasks of 4 bits, plain, of 8 bits, of 4 and of 8."""
    kinds: tuple[Bits | None, ...] = (4, None, 8, 4, 8)
    return [
        block if bits is None or not block.rank else packed(block, bits)
        for block, bits in zip(blocks, kinds, strict=True)
    ]


def random_delta(
    expert_set: tuple[int, ...], blocks: Sequence[TaskBlock], dtype: torch.dtype
) -> BaseOnly | OneTask | SeveralTasks:
    """A low-rank segment's change with a random core."""
    own = tuple(blocks[task] for task in expert_set if blocks[task].rank)
    bias = torch.randn(blocks[0].u_t.shape[1]).to(dtype)
    if not own:
        return BaseOnly(bias)
    if len(own) == 1:
        return OneTask.of(own[0], torch.rand(own[0].rank), bias, dtype)
    k = sum(block.rank for block in own)
    left, right = torch.randn(2, k, k) / k**0.5
    return SeveralTasks.of(own, left, right, bias)


def dense_weight(weight: Tensor, delta: Delta) -> Tensor:
    """W + U C V in float64, written out, with C diagonal or the product of its factors."""
    match delta:
        case MaterialisedWeight():
            return delta.weight.double()
        case BaseOnly():
            return weight.double()
        case FoldedSides():
            return weight.double() + delta.left.double().T @ delta.right.double()
        case SmallSides():
            return weight.double() + (delta.right_t.double() @ delta.left[:-1].double()).T
        case OneTask(block=block):
            return weight.double() + numbers_of(
                block.u_t, torch.float64
            ).T @ delta.singular_values.double().diag() @ numbers_of(block.vh, torch.float64)
        case SeveralTasks(blocks=blocks):
            u, vh = (
                torch.cat([numbers_of(own.u_t, torch.float64) for own in blocks]).T,
                torch.cat([numbers_of(own.vh, torch.float64) for own in blocks]),
            )
            return weight.double() + u @ delta.left.double() @ delta.right.double() @ vh


def expected(x: Tensor, weight: Tensor, deltas: Sequence[Delta], rows: Sequence[int]) -> Tensor:
    """The segmented product in float64, before any activation."""
    parts = []
    for delta, (start, stop) in zip(deltas, pairwise(rows), strict=True):
        y = x[start:stop].double() @ dense_weight(weight, delta).T
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
        *,
        partly: bool = False,
    ) -> Case:
        """Low-rank segments of one to `tasks` tasks; every fifth base only. `partly`: some are packed."""
        torch.manual_seed(d_out + d_in)
        sets = [((i % TASKS,), (0, 1 + i % 4), (0, 2, 4))[i % tasks] for i in range(len(rows) - 1)]
        blocks = random_blocks(d_out, d_in, rank, dtype)
        if partly:
            blocks = partly_packed(blocks)
        deltas: list[Delta] = [random_delta(expert_set, blocks, dtype) for expert_set in sets]
        for i in range(4, len(deltas), 5):
            deltas[i] = BaseOnly(deltas[i].bias)
        x, weight = torch.randn(rows[-1], d_in), torch.randn(d_out, d_in) / d_in**0.5
        return cls(x.to(dtype), weight.to(dtype), deltas, rows)

    def to(self, device: torch.device) -> Case:
        """The same on another device."""
        deltas = [delta_to(delta, device) for delta in self.deltas]
        return Case(self.x.to(device), self.weight.to(device), deltas, self.rows)

    def expected(self) -> Tensor:
        """The outcome in float64."""
        return expected(self.x, self.weight, self.deltas, self.rows)


def delta_to(delta: Delta, device: torch.device) -> Delta:
    """The same change on another device."""

    def moved(part: Any) -> Any:
        match part:
            case Tensor():
                return part.to(device)
            case TaskBlock():
                return TaskBlock(part.u_t.to(device), part.vh.to(device))
            case tuple():
                return tuple(map(moved, part))
        return part

    return type(delta)(**{name: moved(part) for name, part in vars(delta).items()})
