"""A LayerNorm that is computed where the next linear reads its rows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mass_serve.kernels.backend import backend
from mass_serve.kernels.layer_norm import reference
from mass_serve.kernels.records import norm_fields
from tests.interpreter import DEVICE, INTERPRETED
from tests.kernels.fences import Fences
from tests.kernels.normed import EPS, NormedCase
from tests.kernels.segmented import RAGGED_RANKS
from tests.kernels.splits import PATTERNS, offsets

# Packed rows, of which 4 bits take two ways along d_in; odd widths; more columns than a program has.
SHAPES = [((48, 96), 12), ((40, 257), 5), ((24, 588), 38), ((16, 64), 140)]


def _assert_same_rows(rows: Tensor, apart: Tensor) -> None:
    """Those of two orders of summation: in bfloat16 the same, unless a GPU rounds one the other way."""
    if rows.dtype == torch.bfloat16 and INTERPRETED:
        assert torch.equal(rows, apart)
    tolerance = 2e-6 if rows.dtype == torch.float32 else 8e-3
    torch.testing.assert_close(rows, apart, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("partly", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize(("shape", "rank"), SHAPES)
def test_rows_and_product_are_those_of_both_kernels(
    shape: tuple[int, int], rank: int, partly: bool, dtype: torch.dtype
) -> None:
    """Segments of one, of several and of no tasks, and a merged one; a tail; memory that was NaN before."""
    case = NormedCase.random((0, 1, 3, 3, 5, 7), 11, shape, rank, dtype, partly=partly)
    with backend("fused"), Fences().around_new_memory():
        rows, y = case.in_one_launch()
        apart = case.apart()
        assert torch.equal(y, case.linear(rows))
    _assert_same_rows(rows, apart)
    assert torch.count_nonzero(rows[-11:]) == 0
    assert rows[:-11].any(dim=1).all()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_row_is_normalised_by_the_weights_of_its_segment(pattern: str) -> None:
    case = NormedCase.random(offsets(pattern, samples=9, sets=4), 13, (16, 72), 6, torch.float32)
    with backend("fused"):
        rows, _ = case.in_one_launch()
    own = case.case
    wanted = reference.segmented_layer_norm(
        own.x[: own.rows[-1]], case.weights, case.biases, own.rows, EPS
    ).cpu()
    torch.testing.assert_close(rows[: own.rows[-1]].cpu(), wanted, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("ranks", RAGGED_RANKS)
def test_segments_without_a_rank_have_their_rows_too(ranks: tuple[int, ...]) -> None:
    case = NormedCase.random((0, 1, 2, 4, 5, 7), 9, (24, 40), ranks, torch.bfloat16)
    with backend("fused"):
        rows, y = case.in_one_launch()
        _assert_same_rows(rows, case.apart())
        assert torch.equal(y, case.linear(rows))


def test_the_variance_of_rows_far_from_zero_is_as_exact_as_that_of_two_readings() -> None:
    case = NormedCase.random((0, 4), 5, (16, 300), 4, torch.float32)
    own = case.case
    own.x.div_(5).add_(1000)
    with backend("fused"):
        rows, _ = case.in_one_launch()
    x = own.x[:20].double()
    centred = x - x.mean(1, keepdim=True)
    wanted = centred / (centred.square().mean(1, keepdim=True) + EPS).sqrt()
    wanted = wanted * case.weights[0].double() + case.biases[0].double()
    assert (rows[:20].double() - wanted).abs().max() < 5e-4  # 1,000 has 6e-5 of float32 beside it


@pytest.mark.filterwarnings("ignore:invalid value")
def test_rows_that_are_not_finite_harm_no_others() -> None:
    case = NormedCase.random((0, 2, 4), 10, (16, 32), 4, torch.float32)
    with backend("fused"):
        before = case.in_one_launch()
        case.case.x[7], case.case.x[25] = float("nan"), float("inf")
        after = case.in_one_launch()
    others = [row for row in range(40) if row not in (7, 25)]
    for old, new in zip(before, after, strict=True):
        assert torch.equal(old[others], new[others])
        assert not new[[7, 25]].isfinite().any()


@pytest.mark.parametrize("partly", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("shape", [(64, 96), (40, 588), (129, 257)])
def test_nothing_else_is_touched(shape: tuple[int, int], partly: bool) -> None:
    case = NormedCase.random((0, 1, 3, 3, 5, 7), 11, shape, (5, 0, 1, 38, 16), torch.bfloat16, partly=partly)
    fences = Fences()
    with backend("fused"):
        own = fences.around(case)
        with fences.around_new_memory():
            found = own.in_one_launch()
        assert fences.stand()
        for one, wanted in zip(found, case.in_one_launch(), strict=True):
            assert torch.isfinite(one).all()
            assert torch.equal(one, wanted)


def test_weights_that_cannot_be_loaded_whole_are_refused() -> None:
    memory = torch.zeros(65, device=DEVICE)
    with pytest.raises(ValueError, match="multiples of 16 bytes"):
        norm_fields(memory[1:], memory[:64])
