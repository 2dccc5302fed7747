"""Tile shapes of the matrix kernels: read from a table that `python -m benchmarks.tune_kernels` writes.

Which entry a product takes follows from the device, the dtype and the weight's shape alone, never from the
batch, so that a row is summed in the same order in every batch. Nothing is tuned while requests are served.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import torch

from mass_serve.kernels.gpu_architecture import architecture_of, family_of

TABLE = Path(__file__).with_name("tile_shapes.json")
Kernel = Literal["expand", "shrink"]
BARRIER_BYTES = 1024  # at most, beside what the stages of a loop hold


@dataclass(frozen=True)
class TileShape:
    """How one kernel cuts up its product."""

    block_m: int  # rows of x
    block_n: int  # columns of y
    block_k: int  # numbers summed at a time, of d_in
    block_r: int  # the same of the rank
    num_warps: int
    num_stages: int
    max_registers: int = 0  # of a thread, so that more blocks fit a multiprocessor; 0: the compiler chooses


@dataclass(frozen=True)
class Entry:
    """A tile shape and what it was chosen for."""

    device: str  # as torch.cuda.get_device_name gives it, or an architecture
    architecture: str  # the device's, for which the tile is compiled where there is none
    kernel: str
    dtype: str
    columns: int  # of y: d_out, or the rank
    d_in: int
    tile: TileShape
    blocks: int  # that a multiprocessor holds at the least, whatever else the product does
    source: str  # how it was found


def tile_shape(
    kernel: Kernel, dtype: torch.dtype, columns: int, d_in: int, device: torch.device
) -> TileShape:
    """The tile of the entry for that product, or of the nearest one.

    Nearest is one of the same kernel and dtype that fits the device's shared memory: first for the device,
    then for its architecture, then for one of the same family, then without a limit of registers, which suits
    the GPU alone that it was chosen for, then for the shape.
    """
    name = str(dtype).removeprefix("torch.")
    devices = (_device_name(device), *family_of(architecture_of(device)))
    return nearest_entry(kernel, name, columns, d_in, devices, shared_bytes(device)).tile


def read_table(path: Path = TABLE) -> list[Entry]:
    """The entries of a table."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    return [Entry(**{**row, "tile": TileShape(**row["tile"])}) for row in rows]


@cache
def nearest_entry(
    kernel: Kernel, dtype: str, columns: int, d_in: int, devices: tuple[str, ...], room: int | None
) -> Entry:
    """The entry of `tile_shape` for a device with `room` bytes of shared memory for a block.

    `devices` are what the device is called, the narrowest name first. None as room: it is not known, and any
    tile fits. Raises ValueError where none does.
    """

    def fits(tile: TileShape) -> bool:
        stages = tile.num_stages * (tile.block_m + tile.block_n) * tile.block_k
        return room is None or stages * getattr(torch, dtype).itemsize + BARRIER_BYTES <= room

    def distance(entry: Entry) -> tuple[int, bool, float]:
        shape = abs(math.log2(entry.columns / columns)) + abs(math.log2(entry.d_in / d_in))
        if entry.device in devices:
            return devices.index(entry.device), False, shape
        return len(devices), entry.tile.max_registers > 0, shape

    entries = [entry for entry in _table() if (entry.kernel, entry.dtype) == (kernel, dtype)]
    entries = [entry for entry in entries if fits(entry.tile)]
    if not entries:
        raise ValueError(f"no tile of the {kernel} kernel in {dtype} fits {room} bytes of shared memory")
    return min(entries, key=distance)


def compiler_options(tile: TileShape, architecture: str) -> dict[str, int]:
    """Triton's options for a kernel with that tile. Only NVIDIA's compiler takes a limit of registers."""
    limited = tile.max_registers > 0 and architecture.startswith("sm_")
    limit = {"maxnreg": tile.max_registers} if limited else {}
    return {"num_warps": tile.num_warps, "num_stages": tile.num_stages} | limit


def shared_bytes(device: torch.device) -> int | None:
    """How much shared memory a block of a kernel may have on a device; None on a CPU."""
    if device.type != "cuda":
        return None
    return _shared_bytes(torch.cuda.current_device() if device.index is None else device.index)


@cache
def _shared_bytes(index: int) -> int:
    from triton.runtime import driver  # where there is a GPU, there is Triton

    found: int = driver.active.utils.get_device_properties(index)["max_shared_mem"]
    return found


@cache
def _table() -> list[Entry]:
    return read_table()


@cache
def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
