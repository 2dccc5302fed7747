"""The kernel benchmark and the tuning command on tiny products: what they compute, not how fast."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from triton.runtime.errors import OutOfResources, PTXASError

from benchmarks import kernel_times as benchmark
from benchmarks import tune_kernels
from mass_serve.kernels.backend import backend
from mass_serve.kernels.tile_shapes import read_table, tile_shape
from tests.interpreter import DEVICE

LIMITS = {"matrix_operations_per_second": 1e12, "copy_bytes_per_second": 1e9}


@pytest.fixture(autouse=True)
def fused() -> Iterator[None]:
    with backend("fused"), torch.inference_mode():
        yield


def _case() -> benchmark.Case:
    return benchmark.Case.random(4, 5, (48, 32), rank=6, sets=2, device=DEVICE)


def test_the_variants_agree_and_are_timed() -> None:
    figures = benchmark.measure(_case(), "tiny", LIMITS, budget=0.0)
    times = figures["seconds"]
    assert isinstance(times, dict)
    assert set(times) == {"fused", "base alone", "separate", "separate, core apart"}
    assert all(seconds > 0 for seconds in times.values())
    # 20 rows of 80 numbers, the weight, and two sets' sides, of two bytes each
    assert figures["floor_seconds"] == pytest.approx(2 * (20 * 80 + 48 * 32 + 2 * 6 * 80) / 1e9)


def test_a_layer_norm_in_shrink_is_timed_beside_one_of_its_own() -> None:
    case = benchmark.Case.random(4, 5, (48, 32), rank=6, sets=2, device=DEVICE, behind_norm=True)
    variants = case.variants()
    found, wanted = variants["LayerNorm in shrink"](), variants["LayerNorm apart"]()
    assert isinstance(found, torch.Tensor)
    assert isinstance(wanted, torch.Tensor)
    torch.testing.assert_close(found, wanted, atol=2e-2, rtol=2e-2)
    assert (found - benchmark.case_output(variants["fused"])).abs().max() > 0.1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("planned_linear", "fused and separate differ"),
        ("planned_layer_norm", "LayerNorm in shrink and LayerNorm apart differ"),
    ],
)
def test_ways_that_compute_something_else_are_not_timed(
    name: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = getattr(benchmark, name)
    monkeypatch.setattr(benchmark, name, lambda *args, **kwargs: 1.1 * right(*args, **kwargs))
    case = benchmark.Case.random(4, 5, (48, 32), rank=6, sets=2, device=DEVICE, behind_norm=True)
    with pytest.raises(AssertionError, match=message):
        benchmark.measure(case, "tiny", LIMITS, budget=0.0)


def test_tuning_takes_the_fastest_of_those_that_compute_the_product() -> None:
    good = tile_shape("shrink", torch.bfloat16, 6, 32, DEVICE)
    tiles = [good, replace(good, block_m=32)]
    found = tune_kernels.fastest(_case(), "shrink", tiles, budget=0.0)
    assert found is not None
    assert found[0] in tiles
    assert found[1] > 0


@pytest.mark.parametrize(
    "error", [PTXASError("registers"), OutOfResources(300_000, 200_000, "memory"), RuntimeError("CUDA")]
)
def test_tuning_goes_on_after_a_tile_that_does_not_compile(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = tile_shape("shrink", torch.bfloat16, 6, 32, DEVICE)
    bad = replace(good, block_m=32)
    # PyTorch's product, both tiles; once more PyTorch's product, and a tile alone
    failures = iter([None, error, None, None, error])

    def case_output(run: Callable[[], object]) -> torch.Tensor:
        if (failure := next(failures)) is not None:
            raise failure
        return benchmark.case_output(run)

    monkeypatch.setattr(tune_kernels, "case_output", case_output)
    found = tune_kernels.fastest(_case(), "shrink", [bad, good], budget=0.0)
    assert found is not None
    assert found[0] == good
    assert tune_kernels.fastest(_case(), "shrink", [bad], budget=0.0) is None


@pytest.mark.parametrize("kernel", ["expand", "shrink"])
def test_no_candidate_has_more_sums_than_registers(kernel: str) -> None:
    tiles = list(tune_kernels.candidates(kernel))
    assert tiles
    for tile in tiles:
        assert tile.block_m * tile.block_n < 32 * tile.num_warps * (tile.max_registers or 256)


def test_a_tuned_entry_replaces_the_one_for_its_product_and_no_other(tmp_path: Path) -> None:
    before = read_table()
    tuned = replace(before[0], source="measured")
    other = replace(before[0], device="another GPU", source="measured there")
    table = tmp_path / "table.json"
    tune_kernels.write_table(tune_kernels.merged(before, [tuned, other]), table)
    after = read_table(table)
    assert sorted(map(str, after)) == sorted(map(str, [tuned, other, *before[1:]]))
    assert len(json.loads(table.read_text())) == len(before) + 1
