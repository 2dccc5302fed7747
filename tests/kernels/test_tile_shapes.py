"""The table of tile shapes."""

from __future__ import annotations

from dataclasses import asdict, fields, replace

import pytest
import torch

from benchmarks.gpu_targets import TARGETS
from mass_serve.kernels import tile_shapes
from mass_serve.kernels.gpu_architecture import NEAREST_KIN
from mass_serve.kernels.tile_shapes import (
    Kernel,
    TileShape,
    compiler_options,
    nearest_entry,
    read_table,
    tile_shape,
)

CPU = torch.device("cpu")


def test_an_entry_is_found_for_its_own_product() -> None:
    for entry in read_table():
        devices = (entry.device, "sm_90")
        assert nearest_entry(entry.kernel, entry.dtype, entry.columns, entry.d_in, devices, None) == entry


def test_a_device_of_no_entry_takes_that_of_its_architecture() -> None:
    found = nearest_entry("expand", "bfloat16", 768, 768, ("a new card", "sm_80"), None)
    assert found.device == "sm_80"


@pytest.mark.parametrize(("architecture", "kin"), NEAREST_KIN.items())
@pytest.mark.parametrize("kernel", ["expand", "shrink"])
def test_an_architecture_of_no_entry_takes_that_of_its_family(
    kernel: Kernel, architecture: str, kin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = nearest_entry(kernel, "bfloat16", 768, 768, (kin,), None)
    assert wanted.device == kin
    monkeypatch.setattr(tile_shapes, "architecture_of", lambda _: architecture)
    assert tile_shape(kernel, torch.bfloat16, 768, 768, CPU) == wanted.tile


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_device_of_no_family_gets_no_limit_of_another(dtype: str) -> None:
    devices = ("a new card", "sm_75")
    assert nearest_entry("expand", dtype, 768, 768, devices, None).tile.max_registers == 0


def test_nvidias_compiler_alone_is_given_a_limit_of_registers() -> None:
    limited = TileShape(128, 128, 64, 32, num_warps=8, num_stages=3, max_registers=128)
    warps_and_stages = {"num_warps": 8, "num_stages": 3}
    assert compiler_options(limited, "sm_90") == warps_and_stages | {"maxnreg": 128}
    assert compiler_options(replace(limited, max_registers=0), "sm_90") == warps_and_stages
    assert compiler_options(limited, "gfx950") == warps_and_stages


@pytest.mark.parametrize("architecture", [target.architecture for target in TARGETS.values()])
@pytest.mark.parametrize("kernel", ["expand", "shrink"])
def test_every_architecture_has_tiles_of_its_own_in_16_bits(architecture: str, kernel: Kernel) -> None:
    for dtype in ("bfloat16", "float16"):
        assert nearest_entry(kernel, dtype, 768, 768, (architecture,), None).device == architecture


@pytest.mark.parametrize("kernel", ["expand", "shrink"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("columns", [1, 38, 4096])
def test_every_product_has_a_tile(kernel: str, dtype: torch.dtype, columns: int) -> None:
    assert tile_shape(kernel, dtype, columns, 1000, CPU).block_m > 0  # type: ignore[arg-type]


@pytest.mark.parametrize("kernel", ["expand", "shrink"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_every_product_has_a_tile_where_there_is_the_least_memory(kernel: Kernel, dtype: str) -> None:
    least = min(target.shared_bytes for target in TARGETS.values())
    assert nearest_entry(kernel, dtype, 768, 768, ("a small GPU",), least).tile.block_m > 0
    with pytest.raises(ValueError, match=f"no tile of the {kernel} kernel in {dtype} fits 1024 bytes"):
        nearest_entry(kernel, dtype, 768, 768, ("a small GPU",), 1024)


def test_what_lies_behind_a_rank_is_written_before_it_is_read() -> None:
    """The expand kernel reads h in blocks of block_r columns, the shrink kernel writes blocks of block_n."""
    table = read_table()
    written = {entry.tile.block_n for entry in table if entry.kernel == "shrink"}
    read = {entry.tile.block_r for entry in table if entry.kernel == "expand"}
    assert all(n % r == 0 for n in written for r in read)


def test_every_entry_says_how_it_was_found_and_has_whole_tiles() -> None:
    for entry in read_table():
        assert entry.source
        assert entry.blocks >= 1
        sizes = {name: size for name, size in asdict(entry.tile).items() if name.startswith("block")}
        assert all(size >= 16 and size & (size - 1) == 0 for size in sizes.values()), sizes
    assert {field.name for field in fields(TileShape)} == set(asdict(read_table()[0].tile))
