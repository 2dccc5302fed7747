"""Finds tile shapes for this GPU and writes them into the table that the kernels read.

    python -m benchmarks.tune_kernels

For every linear of the three ViTs, in bfloat16: each candidate is checked against PyTorch's product and timed
from a CUDA graph; the fastest is written at once, with what it was measured on. Entries of other devices
stay. Serving only reads the table. Without an NVIDIA GPU it ends with exit code 2.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from unittest import mock

import torch
from triton.errors import TritonError

from benchmarks.gpu_models import VITS, relative_error
from benchmarks.gpu_timing import graphed, medians, need_cuda
from benchmarks.kernel_times import AGREEMENT, Case, case_output, linears
from mass_serve.kernels.gpu_architecture import architecture_of
from mass_serve.kernels.low_rank import fused
from mass_serve.kernels.tile_shapes import TABLE, Entry, TileShape, read_table, tile_shape

SAMPLES = 64
SETS = 8
TASKS = 20
BUDGET = 0.05
MOST_REGISTERS = 255  # that a thread may have


def candidates(kernel: str) -> Iterator[TileShape]:
    """Tiles that fit the multiprocessor's shared memory, and whose sums fit their threads' registers."""
    sizes = (
        ((64, 128), (64, 128, 256), (64,)) if kernel == "expand" else ((64, 128), (32, 64, 128), (64, 128))
    )
    for m, n, k, warps, stages in product(*sizes, (4, 8), (3, 4)):
        if 2 * stages * k * (m + n) > 200 * 1024:
            continue
        # Of eight warps with half of the registers, two blocks have all that there are.
        for limit in (0, 128) if warps == 8 else (0,):
            if m * n // (32 * warps) < (limit or MOST_REGISTERS):
                yield TileShape(m, n, k, 32, warps, stages, max_registers=limit)


def fastest(
    case: Case, kernel: str, tiles: Sequence[TileShape], budget: float = BUDGET
) -> tuple[TileShape, float] | None:
    """The tile of `kernel` with which the case takes the least time, and that time in seconds.

    Candidates that do not compile, for want of registers or of shared memory, or compute something else are
    out. None where all are.
    """
    wanted = case_output(case.variants()["separate"])
    times: dict[TileShape, float] = {}
    for tile in tiles:

        def chosen(name: str, dtype: torch.dtype, columns: int, d_in: int, device: torch.device) -> TileShape:
            return tile if name == kernel else tile_shape(name, dtype, columns, d_in, device)  # type: ignore[arg-type]  # noqa: B023

        with mock.patch.object(fused, "tile_shape", chosen):
            run = case.variants()["fused"]
            try:
                right = relative_error(case_output(run), wanted) < AGREEMENT
            except (RuntimeError, TritonError) as error:
                print(f"{tile}: {error}")
                continue
            if right:
                times[tile] = medians({"": graphed(run, case.x.device)}, case.x.device, budget)[""]
    return min(times.items(), key=lambda timed: timed[1], default=None)


def tune(device: torch.device, name: str) -> Iterator[Entry]:
    """Yields the entries of this device, both kernels, every linear, as they are found."""
    for architecture in VITS.values():
        for shape in linears(architecture).values():
            rank = min(shape) // TASKS
            case = Case.random(SAMPLES, architecture.num_tokens, shape, rank, SETS, device)
            for kernel, columns in (("shrink", rank), ("expand", shape[0])):
                found = fastest(case, kernel, list(candidates(kernel)))
                if found is None:
                    print(f"no tile of the {kernel} kernel computes {columns} columns of {shape[1]} numbers")
                    continue
                tile, seconds = found
                source = f"fastest of the candidates at {len(case.x)} rows: {1e6 * seconds:.1f} us"
                # What was measured to be the fastest promises no number of blocks.
                yield Entry(
                    name,
                    architecture_of(device),
                    kernel,
                    "bfloat16",
                    columns,
                    shape[1],
                    tile,
                    blocks=1,
                    source=source,
                )


def merged(before: Sequence[Entry], found: Sequence[Entry]) -> list[Entry]:
    """The table with the found entries in place of those for the same product."""
    keys = {replace(entry, tile=None, blocks=0, source="") for entry in found}  # type: ignore[arg-type]
    return [*found, *(e for e in before if replace(e, tile=None, blocks=0, source="") not in keys)]  # type: ignore[arg-type]


def write_table(entries: Sequence[Entry], path: Path = TABLE) -> None:
    """One entry a line."""
    rows = ",\n".join("  " + json.dumps(asdict(entry)) for entry in entries)
    path.write_text(f"[\n{rows}\n]\n", encoding="utf-8")


@torch.inference_mode()
def main() -> None:
    """The command."""
    argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0]).parse_args()
    device = need_cuda()
    for entry in tune(device, torch.cuda.get_device_name(device)):
        print(entry, flush=True)
        write_table(merged(read_table(), [entry]))


if __name__ == "__main__":
    main()
