"""What a launch of a fused kernel computes and moves, by its own tiles and arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from torch import Tensor

from benchmarks.launches import Launch
from mass_serve.kernels.records import LinearField, TileField

TF32_PRODUCTS = 3  # of which a product in float32 is made
TF32_RATE = 0.5  # of that of 16 bits
PARTS = 2  # of a direction in bfloat16, each with a product of its own


@dataclass(frozen=True)
class Work:
    """What one launch does."""

    operations: float  # of whole tiles, as many as of 16 bits would take as long
    nbytes: float  # read or written, each once: what a tile reads again is in the cache
    programs: int  # that do not return at once
    reread: int = 0  # bytes among them that the same program reads a second time, much later


def work_of(launch: Launch) -> Work:
    """The work of a launch: that of its kernel, or what all its tensors hold where it has no product."""
    kind = KERNELS.get(launch.kernel)
    return _moved(launch.grid, launch.arguments) if kind is None else kind(launch.grid, launch.arguments)


def _moved(grid: tuple[int, ...], own: Mapping[str, Any]) -> Work:
    """Of a kernel of rows."""
    tensors = (one for one in own.values() if isinstance(one, Tensor) and one.is_meta)
    return Work(0.0, sum(one.nbytes for one in tensors), grid[0])


def _shrink(grid: tuple[int, ...], own: Mapping[str, Any]) -> Work:  # noqa: ARG001 - the tiles say more
    rows, blocks, columns = 0, 0, 0
    ranks: dict[int, int] = {}
    for first, end, segment, _ in _used(own):
        ranks[segment] = rank = _rank(own, segment)
        # Behind a LayerNorm a tile without a rank has its rows to write.
        count = max(ceil(rank / own["BLOCK_N"]), int(own["NORM"]))
        rows, blocks, columns = rows + end - first, blocks + count, columns + (end - first) * count
    operations = 2.0 * blocks * own["BLOCK_M"] * own["BLOCK_N"] * own["d_in"]
    written = len(own["y"]) if own["NORM"] else 0
    numbers = (rows + sum(ranks.values()) + written) * own["d_in"] + columns * own["BLOCK_N"]
    size: int = own["x"].element_size()
    # Behind a LayerNorm a program reads its rows for their mean and variance, and then for the product.
    reread = rows * own["d_in"] * size if own["NORM"] else 0
    return Work(_at_rate(operations, own), numbers * size, blocks, reread)


def _expand(grid: tuple[int, ...], own: Mapping[str, Any]) -> Work:  # noqa: ARG001 - the tiles say more
    blocks, width = ceil(own["columns_of_y"] / own["BLOCK_N"]), own["columns_of_y"]
    tiles, rows, summed, shrunk = 0, 0, 0, 0
    ranks: dict[int, int] = {}
    for first, end, segment, last in _used(own):
        tiles, rows, summed = tiles + 1, rows + end - first, summed + own["d_in"]
        if own["LOW_RANK"]:
            for one in range(segment, last + 1):
                ranks[one] = _rank(own, one)
                summed += ceil(ranks[one] / own["BLOCK_R"]) * own["BLOCK_R"]
            shrunk += (end - first) * ranks[segment]
    operations = 2.0 * own["BLOCK_M"] * blocks * own["BLOCK_N"] * summed
    moved = rows * (own["d_in"] + width * (2 if own["HAS_SKIP"] else 1)) + shrunk
    numbers = moved + width * (own["d_in"] + sum(ranks.values()))
    return Work(_at_rate(operations, own), numbers * own["x"].element_size(), tiles * blocks)


def _attention(grid: tuple[int, ...], own: Mapping[str, Any]) -> Work:
    samples, heads = int((own["sample_segments"] >= 0).sum()), grid[1]
    queries = 1 if own["FIRST"] else own["tokens"]
    tiles = ceil(queries / own["BLOCK_M"])
    keys = ceil(own["tokens"] / own["BLOCK_K"]) * own["BLOCK_K"]
    programs = samples * heads * tiles
    operations = 4.0 * programs * own["BLOCK_M"] * keys * own["BLOCK_D"]
    numbers = 2 * samples * heads * own["HEAD"] * (queries + own["tokens"])
    return Work(_at_rate(operations, own), numbers * own["q"].element_size(), programs)


def _energies(grid: tuple[int, ...], own: Mapping[str, Any]) -> Work:
    samples, tasks = grid
    rows = ceil(own["tokens"] / own["ROWS"]) * own["ROWS"]
    blocks = ceil(len(own["directions"]) / tasks / own["COLUMNS"]) * own["COLUMNS"]
    products = PARTS if own["IN_PARTS"] else TF32_PRODUCTS / TF32_RATE
    operations = 2.0 * samples * tasks * rows * blocks * own["width"] * products
    read = samples * own["tokens"] * own["width"] * own["x"].element_size()
    return Work(operations, read + own["directions"].nbytes + own["energies"].nbytes, samples * tasks)


def _at_rate(operations: float, own: Mapping[str, Any]) -> float:
    return operations * (TF32_PRODUCTS / TF32_RATE if own["PRECISION"] == "tf32x3" else 1)


def _used(own: Mapping[str, Any]) -> list[list[int]]:
    """The tiles that have rows of segments."""
    tiles: Tensor = own["tiles"]
    fields = [TileField.FIRST_ROW, TileField.END_ROW, TileField.FIRST_SEGMENT, TileField.LAST_SEGMENT]
    has_rows = tiles[:, TileField.FIRST_ROW] < tiles[:, TileField.END_ROW]
    some = has_rows & (tiles[:, TileField.FIRST_SEGMENT] >= 0)
    found: list[list[int]] = tiles[some][:, torch.tensor(fields)].tolist()
    return found


def _rank(own: Mapping[str, Any], segment: int) -> int:
    table: Tensor = own["table"]
    return int(table[segment, own["field"] + LinearField.RANK])


KERNELS: Mapping[str, Callable[[tuple[int, ...], Mapping[str, Any]], Work]] = {
    "shrink_kernel": _shrink,
    "expand_kernel": _expand,
    "attention_kernel": _attention,
    "energies_kernel": _energies,
}
