"""The roofline model counts what a pass launches, and its recorded figures are those of the code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.gpu_models import VITS, multiply_adds
from benchmarks.kernel_work import work_of
from benchmarks.launches import Launch, Operation
from benchmarks.roofline import GPUS, MEMORY_SHARE, MODEL, TARGETS, Passes, ratios, seconds

RESULT = Path(__file__).parents[2] / "benchmarks" / "results" / "roofline.json"


def _operations(launched: list[Launch | Operation]) -> float:
    return sum(work_of(one).operations for one in launched if isinstance(one, Launch))


@pytest.fixture(scope="module")
def passes() -> Passes:
    return Passes(8)


def test_a_dense_pass_computes_what_its_products_are_and_little_beside(passes: Passes) -> None:
    wanted = 2 * multiply_adds(VITS[MODEL], 64)
    # The last block's queries of all tokens but one are left out; tiles and keys are whole ones.
    assert 0.9 * wanted < _operations(passes.dense(64)) < 1.1 * wanted


def test_padded_samples_cost_no_products(passes: Passes) -> None:
    whole, padded = _operations(passes.second(64, 1, 1)), _operations(passes.second(40, 1, 1))
    assert padded / whole == pytest.approx(40 / 64, rel=0.05)


def test_more_tasks_in_a_set_cost_more(passes: Passes) -> None:
    gpu = GPUS["H200 SXM"]
    dense, *sets = (passes.dense(64), passes.second(64, 1, 8), passes.second(64, 3, 8))
    took = [seconds(one, gpu) for one in (dense, *sets)]
    assert took == sorted(took)


@pytest.mark.parametrize("sets", [1, 8])
def test_nearly_all_programs_that_are_launched_for_a_product_have_rows(passes: Passes, sets: int) -> None:
    """For 98.5 tiles of the 64 images' rows 163 were launched, whatever weights the segments could have."""
    launched = [*passes.second(64, 1, sets), *passes.dense(64)]
    products = [one for one in launched if isinstance(one, Launch) and one.kernel == "expand_kernel"]
    of_all_tokens = [one for one in products if one.arguments["num_tiles"] > 20]
    assert len(of_all_tokens) >= 2 * 4 * 11
    for one in of_all_tokens:
        assert one.arguments["num_tiles"] == -(-64 * one.arguments["tokens"] // 128) + 1
        assert work_of(one).programs / one.grid[0] >= 0.95


def test_a_second_pass_normalises_rows_where_they_are_shrunk(passes: Passes) -> None:
    """Of 26 LayerNorms those of 12 blocks are in launches of the linears that they stand before."""
    kernels = [one.kernel for one in passes.second(64, 1, 8) if isinstance(one, Launch)]
    dense = [one.kernel for one in passes.dense(64) if isinstance(one, Launch)]
    assert kernels.count("layer_norm_kernel") == dense.count("layer_norm_kernel") - 24
    # Of the last block queries, too, are those of one token, which are shrunk apart.
    assert kernels.count("shrink_kernel") == kernels.count("expand_kernel")
    normed = [one for one in passes.second(64, 1, 8) if isinstance(one, Launch) and one.arguments.get("NORM")]
    assert len(normed) == 24


def test_rows_are_read_twice_where_they_are_normalised_and_nowhere_else(passes: Passes) -> None:
    launched = passes.second(64, 1, 8)
    reread = [work_of(one).reread for one in launched if isinstance(one, Launch)]
    # Behind the last block's attention one token of each image is left.
    assert sorted(filter(None, reread)) == [64 * 768 * 2, *[64 * 197 * 768 * 2] * 23]
    gpu = GPUS["H100 SXM"]
    # Some of the launches multiply for as long as that takes.
    longest = sum(reread) / (gpu.bytes * MEMORY_SHARE)
    more = seconds(launched, gpu, rows_read_twice=True) - seconds(launched, gpu)
    assert 0.5 * longest < more <= 1.001 * longest
    assert seconds(passes.dense(64), gpu, rows_read_twice=True) == seconds(passes.dense(64), gpu)


@pytest.mark.slow
def test_the_recorded_figures_are_those_of_the_code() -> None:
    """Else `python -m benchmarks.roofline --json benchmarks/results/roofline.json` was not run."""
    for name, recorded in json.loads(RESULT.read_text(encoding="utf-8"))["gpus"].items():
        assert ratios(GPUS[name]) == pytest.approx(recorded["ratios"])
        twice = ratios(GPUS[name], rows_read_twice=True)
        assert twice == pytest.approx(recorded["ratios_rows_read_twice"])
        assert recorded["ratios"].keys() >= TARGETS.keys()
