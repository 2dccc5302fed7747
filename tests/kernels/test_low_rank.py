"""The segmented low-rank linear against explicit dense weights in float64."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mass_serve.kernels import (
    BaseOnly,
    Delta,
    MaterialisedWeight,
    OneTask,
    QuantisedWeight,
    ReorderedWeight,
    SeveralTasks,
    SmallSides,
    Weight,
    segmented_linear,
)
from tests.kernels.segmented import (
    RAGGED_RANKS,
    TASKS,
    Case,
    dense_weight,
    expected,
    in_dtype,
    partly_packed,
    random_blocks,
    random_delta,
)
from tests.kernels.splits import PATTERNS, offsets

TOLERANCES = [(torch.float32, 2e-5, 1e-4), (torch.bfloat16, 8e-2, 3e-2)]


@pytest.fixture(params=[1, 2, 5])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """So many threads compute, in that test alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("dtype", "atol", "rtol"), TOLERANCES)
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(
    ("d_out", "d_in", "rank"), [(64, 96, 12), (2049, 64, 1), (129, 257, 38), (48, 768, 16)]
)
def test_it_is_the_dense_product_of_each_segment(
    pattern: str, d_out: int, d_in: int, rank: int, dtype: torch.dtype, atol: float, rtol: float
) -> None:
    torch.manual_seed(d_out)
    rows = tuple(5 * offset for offset in offsets(pattern, samples=9, sets=4))
    sets = [((i % TASKS,), (0, 1 + i % 4), (0, 2, 4))[i % 3] for i in range(len(rows) - 1)]
    blocks = random_blocks(d_out, d_in, rank, dtype)
    deltas = [random_delta(expert_set, blocks, dtype) for expert_set in sets]
    x, weight = torch.randn(rows[-1], d_in).to(dtype), torch.randn(d_out, d_in).to(dtype) / d_in**0.5
    y = segmented_linear(x, weight, deltas, rows)
    wanted = expected(x, weight, deltas, rows)
    torch.testing.assert_close(y.double(), wanted, atol=atol, rtol=rtol)


@pytest.mark.parametrize(("dtype", "atol", "rtol"), TOLERANCES)
@pytest.mark.parametrize("ranks", RAGGED_RANKS)
@pytest.mark.parametrize(("d_out", "d_in"), [(64, 96), (129, 40)])
def test_every_task_has_a_rank_of_its_own(
    d_out: int, d_in: int, ranks: tuple[int, ...], dtype: torch.dtype, atol: float, rtol: float
) -> None:
    case = Case.random((0, 5, 11, 30, 31, 47, 60, 80, 81, 90), d_out, d_in, ranks, dtype)
    y = segmented_linear(case.x, case.weight, case.deltas, case.rows)
    torch.testing.assert_close(y.double(), case.expected(), atol=atol, rtol=rtol)


def test_a_task_without_a_rank_leaves_the_product_alone() -> None:
    case = Case.random((0, 24), 48, 32, (0, 3, 4, 0, 2), torch.float32)
    changed = segmented_linear(case.x, case.weight, case.deltas, case.rows)
    alone = segmented_linear(case.x, case.weight, [BaseOnly(case.deltas[0].bias)], case.rows)
    assert torch.equal(changed, alone)


def test_low_rank_and_materialised_segments_share_a_launch() -> None:
    torch.manual_seed(0)
    blocks, weight, x = random_blocks(24, 32, 4, torch.float32), torch.randn(24, 32), torch.randn(40, 32)
    low_rank = [random_delta(tasks, blocks, torch.float32) for tasks in ((0,), (1, 3))]
    merged = [MaterialisedWeight(dense_weight(weight, d).float(), d.bias) for d in low_rank]
    mixed: list[Delta] = [low_rank[0], merged[1], merged[0], low_rank[1]]
    rows = (0, 8, 19, 19, 40)
    y = segmented_linear(x, weight, mixed, rows)
    torch.testing.assert_close(y.double(), expected(x, weight, mixed, rows), atol=1e-5, rtol=1e-4)
    only_merged = segmented_linear(x, weight, [merged[0]], (0, 40))
    torch.testing.assert_close(only_merged, torch.addmm(merged[0].bias, x, merged[0].weight.T))  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ranks", [(12,) * TASKS, (160,) * TASKS, *RAGGED_RANKS])
@pytest.mark.usefixtures("threads")
def test_a_row_has_the_same_bits_alone_and_in_any_company(ranks: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    blocks, weight = random_blocks(96, 64, ranks, dtype), torch.randn(96, 64).to(dtype)
    deltas = [random_delta(s, blocks, dtype) for s in ((0,), (1, 2), (3,), (0, 2, 4))]
    x = torch.randn(4 * 34, 64).to(dtype)
    y = segmented_linear(x, weight, deltas, (0, 34, 68, 102, 136))
    for i, delta in enumerate(deltas):
        for rows in (1, 3, 17, 34):
            part = slice(34 * i + 34 - rows, 34 * i + 34)
            assert torch.equal(segmented_linear(x[part], weight, [delta], (0, rows)), y[part])


def test_output_rows_are_the_rows_of_the_whole_product() -> None:
    torch.manual_seed(2)
    blocks, weight, x = random_blocks(30, 16, 4, torch.float32), torch.randn(30, 16), torch.randn(16, 16)
    delta = random_delta((1, 2), blocks, torch.float32)
    whole = segmented_linear(x, weight, [delta], (0, 16))
    rows = slice(10, 30)
    part = segmented_linear(x, weight[rows], [delta.output_rows(rows)], (0, 16))
    torch.testing.assert_close(part, whole[:, rows])


@pytest.mark.parametrize("tasks", [(0,), (1, 3)])
@pytest.mark.parametrize("rank", [7, 16])
def test_blocks_of_16_bits_give_the_bits_of_the_same_numbers_in_32(tasks: tuple[int, ...], rank: int) -> None:
    torch.manual_seed(3)
    x, weight = torch.randn(21, 32), torch.randn(48, 32)
    narrow = random_blocks(48, 32, rank, torch.bfloat16)
    wide = [in_dtype(block, torch.float32) for block in narrow]
    torch.manual_seed(4)
    delta = random_delta(tasks, narrow, torch.float32)
    torch.manual_seed(4)
    of_wide = random_delta(tasks, wide, torch.float32)
    found, wanted = (segmented_linear(x, weight, [own], (0, 21)) for own in (delta, of_wide))
    assert torch.equal(found, wanted)


def test_small_sides_change_bfloat16_by_sums_in_float32() -> None:
    torch.manual_seed(5)
    x, weight = torch.randn(21, 64).bfloat16(), torch.zeros(96, 64, dtype=torch.bfloat16)
    delta = _small(random_delta((0,), random_blocks(96, 64, 12, torch.bfloat16), torch.float32))
    found = segmented_linear(x, weight, [delta], (0, 21))
    wanted = expected(x, weight, [delta], (0, 21))
    # Half of a last digit of bfloat16: it is rounded once.
    torch.testing.assert_close(found.double(), wanted, atol=1e-5, rtol=2**-8)


def _small(delta: Delta) -> Delta:
    return SmallSides.of(delta) if isinstance(delta, OneTask | SeveralTasks) else delta


@pytest.mark.parametrize(("dtype", "atol", "rtol"), TOLERANCES)
@pytest.mark.parametrize("partly", [False, True])
@pytest.mark.parametrize("ranks", [(16,) * TASKS, *RAGGED_RANKS])
def test_small_sides_are_what_they_are_made_of(
    ranks: tuple[int, ...], partly: bool, dtype: torch.dtype, atol: float, rtol: float
) -> None:
    case = Case.random((0, 5, 11, 11, 31, 47, 60, 80, 81, 90), 64, 96, ranks, dtype, partly=partly)
    small = list(map(_small, case.deltas))
    small[1] = MaterialisedWeight(dense_weight(case.weight, case.deltas[1]).to(dtype), case.deltas[1].bias)
    y = segmented_linear(case.x, case.weight, small, case.rows)
    torch.testing.assert_close(y.double(), case.expected(), atol=atol, rtol=rtol)
    torch.testing.assert_close(
        y.double(), expected(case.x, case.weight, small, case.rows), atol=atol, rtol=rtol
    )


@pytest.mark.parametrize("form", [Tensor.clone, ReorderedWeight.of, "quantised"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.usefixtures("threads")
def test_a_row_of_small_sides_has_the_same_bits_alone_and_in_any_company(
    dtype: torch.dtype, form: Any
) -> None:
    torch.manual_seed(6)
    blocks, plain = random_blocks(384, 128, (16, 7, 33, 2, 16), dtype), torch.randn(384, 128).to(dtype)
    weight: Weight = QuantisedWeight.of(plain, dtype).ordered() if form == "quantised" else form(plain)
    deltas = [_small(random_delta(s, blocks, dtype)) for s in ((0,), (1, 2), (3,), (0, 2, 4))]
    deltas.append(BaseOnly(torch.randn(384).to(dtype)))
    x = torch.randn(5 * 68, 128).to(dtype)
    y = segmented_linear(x, weight, deltas, (0, 68, 136, 204, 272, 340), "quick_gelu")
    for i, delta in enumerate(deltas):
        for rows in (1, 3, 8, 17, 34, 64, 68):
            part = slice(68 * i + 68 - rows, 68 * i + 68)
            alone = segmented_linear(x[part], weight, [delta], (0, rows), "quick_gelu")
            assert torch.equal(alone, y[part])


def test_output_rows_of_small_sides_are_the_rows_of_the_whole_product() -> None:
    torch.manual_seed(7)
    blocks, weight, x = random_blocks(48, 32, 4, torch.float32), torch.randn(48, 32), torch.randn(16, 32)
    delta = _small(random_delta((1, 2), blocks, torch.float32))
    rows = slice(16, 48)
    part = segmented_linear(x, weight[rows], [delta.output_rows(rows)], (0, 16))
    torch.testing.assert_close(part, segmented_linear(x, weight, [delta], (0, 16))[:, rows])


def test_a_width_that_products_are_padded_to_leaves_no_gap_in_what_is_activated() -> None:
    torch.manual_seed(8)
    blocks, weight = random_blocks(40, 24, 6, torch.float32), torch.randn(40, 24)
    deltas = [_small(random_delta((task,), blocks, torch.float32)) for task in range(3)]
    x = torch.randn(40, 24)
    y = segmented_linear(x, weight, deltas, (0, 25, 30, 40), "gelu")
    alone = segmented_linear(x[:25], weight, deltas[:1], (0, 25), "gelu")
    assert torch.equal(y[:25], alone)


class _Counted(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations inside the block, but for those that give views."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view:
            self.operations[func.__name__.split(".")[0]] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [3, 16])  # short segments are padded, all at once
def test_a_segment_with_small_sides_takes_two_products_and_nothing_else(
    rows: int, dtype: torch.dtype
) -> None:
    blocks = partly_packed(random_blocks(48, 32, 16, torch.bfloat16))
    counts = []
    for segments in (2, 4):
        deltas = [_small(random_delta((task,), blocks, dtype)) for task in range(segments)]
        x, weight = torch.randn(rows * segments, 32).to(dtype), torch.randn(48, 32).to(dtype)
        offsets_of_rows = [rows * i for i in range(segments + 1)]
        segmented_linear(x, weight, deltas, offsets_of_rows)  # the first time finds out what is padded
        with _Counted() as counted:
            segmented_linear(x, weight, deltas, offsets_of_rows)
        counts.append(counted.operations)
    assert counts[1] - counts[0] == Counter(mm=2, addmm_=2)


def test_offsets_that_do_not_cover_the_rows_are_refused() -> None:
    blocks = random_blocks(4, 4, 1, torch.float32)
    delta = random_delta((0,), blocks, torch.float32)
    with pytest.raises(ValueError, match="offsets"):
        segmented_linear(torch.randn(4, 4), torch.randn(4, 4), [delta], (0, 3))
