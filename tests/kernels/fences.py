"""Tensors between fences: what an operation reads beside them is NaN, and what it writes there is found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor

from mass_serve.kernels.segment_plan import SegmentPlan, Tiling

FENCE = 512  # numbers, on both sides: more than a tile has columns, and a multiple of every alignment
T = TypeVar("T")


class Fences:
    """Hands out tensors with fences around them, and tells whether the fences stand."""

    def __init__(self) -> None:
        self._fences: list[tuple[Tensor, Tensor]] = []

    def around(self, value: T) -> T:
        """The same tensor, dataclass or sequence of them with fences around each of its tensors."""
        made: Any = value
        if isinstance(value, Tensor):
            made = self._room(value.shape, value.dtype, value.device).copy_(value)
        elif isinstance(value, list | tuple):
            made = type(value)(map(self.around, value))
        elif is_dataclass(value) and not isinstance(value, type):
            made = type(value)(**{one.name: self.around(getattr(value, one.name)) for one in fields(value)})
        result: T = made
        return result

    @contextmanager
    def around_new_memory(self) -> Iterator[None]:
        """Inside the block outputs, scratch and what plans hold have fences too, and the former are NaN."""

        def new_empty(
            own: Tensor, *size: int, dtype: torch.dtype | None = None, device: torch.device | None = None
        ) -> Tensor:
            shape = torch.Size(size[0] if isinstance(size[0], tuple) else size)
            return self._room(shape, dtype or own.dtype, device or own.device)

        def empty(*size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
            return self._room(torch.Size(size), dtype, device)

        cut, tiles_of = SegmentPlan._cut, SegmentPlan.tiles

        def fenced_cut(plan: SegmentPlan, *segments: Any) -> None:
            cut(plan, *segments)
            for name in ("offsets", "sample_segments", "table", "token_offsets"):
                setattr(plan, name, self.around(getattr(plan, name)))

        def tiles(plan: SegmentPlan, tiling: Tiling) -> Tensor:
            return self.around(tiles_of(plan, tiling))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SegmentPlan, "_cut", fenced_cut)
            patch.setattr(SegmentPlan, "tiles", tiles)
            patch.setattr(Tensor, "new_empty", new_empty)
            patch.setattr(torch, "empty", empty)
            yield

    def stand(self) -> bool:
        """Tells that nothing was written beside any of the tensors."""
        return all(torch.equal(_bytes(now), _bytes(before)) for now, before in self._fences)

    def _room(self, shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
        size = shape.numel()
        value = float("nan") if dtype.is_floating_point else torch.iinfo(dtype).min
        memory = torch.full((size + 2 * FENCE,), value, dtype=dtype, device=device)
        for fence in (memory[:FENCE], memory[FENCE + size :]):
            self._fences.append((fence, fence.clone()))
        return memory[FENCE : FENCE + size].view(shape)


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(torch.uint8)
