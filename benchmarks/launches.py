"""What a planned pass launches, without a GPU: kernels with grids and arguments, and PyTorch's operations.

The pass runs with tensors that have sizes and no memory (`meta`), by a plan that is real: which rows a tile
has, and which rank a segment, stands in it as it would on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
import triton
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.gpu_targets import TARGETS
from mass_serve.kernels import tile_shapes
from mass_serve.kernels.backend import backend

HOPPER = TARGETS["sm_90a"]


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel: its arguments by name, constants among them."""

    kernel: str
    grid: tuple[int, ...]
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Operation:
    """One operation of PyTorch's on the device."""

    name: str
    nbytes: int  # of all that it reads and writes


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes what touches tensors without memory."""

    def __init__(self, found: list[Launch | Operation]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        read, made = _on_device((args, kwargs)), _on_device(result)
        # One that only makes room, or looks at what is there in another way, touches nothing.
        is_view = bool(made) and {_place(one) for one in made} <= {_place(one) for one in read}
        is_idle = is_view and not func._schema.is_mutable
        if (read or made) and not is_idle and "empty" not in func.overloadpacket.__name__:
            self._found.append(Operation(func.overloadpacket.__name__, sum(map(_nbytes, read + made))))
        return result


def _on_device(parts: Any) -> list[Tensor]:
    return [part for part in tree_leaves(parts) if isinstance(part, Tensor) and part.is_meta]


def _place(tensor: Tensor) -> int:
    place: int = tensor.untyped_storage()._cdata
    return place


def _nbytes(tensor: Tensor) -> int:
    """What is in memory of a tensor, of which an expanded dimension is there once."""
    numbers = tensor.element_size()
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        numbers *= size if stride else 1
    return numbers


@contextmanager
def recorded() -> Iterator[list[Launch | Operation]]:
    """Inside the block fused kernels are noted and not run, with the tiles that an H100 or H200 has."""
    found: list[Launch | Operation] = []

    def launch(kernel: Any, *args: Any, grid: Any, warmup: bool, **constants: Any) -> None:  # noqa: ARG001
        arguments = dict(zip(kernel.arg_names, args, strict=False)) | constants
        found.append(Launch(kernel.fn.__name__, tuple(grid), arguments))

    with (
        patch.object(triton.JITFunction, "run", launch),
        patch.object(tile_shapes, "architecture_of", lambda _: HOPPER.architecture),
        patch.object(tile_shapes, "shared_bytes", lambda _: HOPPER.shared_bytes),
        backend("fused"),
        _Operations(found),
    ):
        yield found


def launches_of(run: Callable[[], object]) -> list[Launch | Operation]:
    """Everything that a pass launches, in order."""
    with torch.inference_mode(), recorded() as found:
        run()
    return found
