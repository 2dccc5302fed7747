"""The fused segmented linear against its reference and against float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mass_serve.kernels import MaterialisedWeight, SeveralTasks, linear, segmented_linear
from mass_serve.kernels.activation_names import ACTIVATIONS, Activation
from mass_serve.kernels.backend import backend
from mass_serve.kernels.low_rank import reference
from tests.interpreter import DEVICE, INTERPRETED
from tests.kernels.segmented import RAGGED_RANKS, Case, activated, dense_weight
from tests.kernels.splits import PATTERNS, offsets

# What rounding to the dtype alone costs, with room for the order of summation.
TOLERANCES = [(torch.float32, 2e-5, 1e-4), (torch.float16, 1e-2, 4e-3), (torch.bfloat16, 8e-2, 3e-2)]
SHAPES = [
    (64, 64, 16),
    (768, 64, 96),
    (64, 768, 38),
    (40, 1024, 114),
    (288, 64, 288),
    (129, 257, 38),
    (2049, 33, 1),
]


def _fused(case: Case, **options: object) -> Tensor:
    moved = case.to(DEVICE)
    with backend("fused"):
        y = segmented_linear(moved.x, moved.weight, moved.deltas, moved.rows, **options)  # type: ignore[arg-type]
    return y.cpu()


def _reference(case: Case, **options: object) -> Tensor:
    return reference.segmented_linear(
        case.x,
        case.weight,
        case.deltas,
        case.rows,
        **options,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(("dtype", "atol", "rtol"), [TOLERANCES[0], TOLERANCES[2]])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_of_segments(pattern: str, dtype: torch.dtype, atol: float, rtol: float) -> None:
    rows = tuple(11 * offset for offset in offsets(pattern, samples=13, sets=6))
    case = Case.random(rows, 56, 72, 12, dtype)
    y = _fused(case)
    torch.testing.assert_close(y.double(), case.expected(), atol=atol, rtol=rtol)
    torch.testing.assert_close(y, _reference(case), atol=atol, rtol=rtol)


@pytest.mark.parametrize(("dtype", "atol", "rtol"), TOLERANCES)
@pytest.mark.parametrize(("d_out", "d_in", "rank"), SHAPES)
def test_every_rank_and_width(
    d_out: int, d_in: int, rank: int, dtype: torch.dtype, atol: float, rtol: float
) -> None:
    case = Case.random((0, 5, 23, 40), d_out, d_in, rank, dtype, tasks=3 if rank < 100 else 1)
    y = _fused(case)
    torch.testing.assert_close(y.double(), case.expected(), atol=atol, rtol=rtol)


@pytest.mark.parametrize(("dtype", "atol", "rtol"), TOLERANCES)
@pytest.mark.parametrize("ranks", RAGGED_RANKS)
def test_every_task_has_a_rank_of_its_own(
    ranks: tuple[int, ...], dtype: torch.dtype, atol: float, rtol: float
) -> None:
    """Segments of one, of several and of no tasks, and a merged one: a rank each in one launch."""
    case = Case.random((0, 5, 11, 30, 31, 47, 60, 80), 72, 56, ranks, dtype)
    own = dense_weight(case.weight, case.deltas[3]).to(dtype)
    case.deltas[3] = MaterialisedWeight(own, case.deltas[3].bias)
    y = _fused(case)
    torch.testing.assert_close(y.double(), case.expected(), atol=atol, rtol=rtol)
    torch.testing.assert_close(y, _reference(case), atol=atol, rtol=rtol)


@pytest.mark.parametrize("activation", [*ACTIVATIONS, None])
@pytest.mark.parametrize("with_skip", [False, True])
def test_activation_and_skip_follow_the_product(activation: Activation | None, with_skip: bool) -> None:
    case = Case.random((0, 5, 23, 40), 48, 64, 9, torch.float32)
    skip = torch.randn(40, 48) if with_skip else None
    y = _fused(case, activation=activation, skip=None if skip is None else skip.to(DEVICE))
    wanted = activated(case.expected(), activation) + (0 if skip is None else skip.double())
    torch.testing.assert_close(y.double(), wanted, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(_reference(case, activation=activation, skip=skip), y, atol=2e-5, rtol=1e-4)


@pytest.mark.skipif(not INTERPRETED, reason="what the compiler says of it, tests without a GPU hold")
def test_an_unknown_activation_is_not_taken_for_none() -> None:
    case = Case.random((0, 5), 48, 64, 9, torch.float32)
    with pytest.raises(Exception, match="no such activation"):
        _fused(case, activation="relu")


@pytest.mark.parametrize(("dtype", "atol", "rtol"), TOLERANCES)
def test_low_rank_folded_materialised_and_base_only_segments_share_a_launch(
    dtype: torch.dtype, atol: float, rtol: float
) -> None:
    case = Case.random((0, 9, 30, 30, 47, 64, 70, 90), 80, 96, 12, dtype)
    low_rank = list(case.deltas)
    for i in (1, 3):
        own = dense_weight(case.weight, low_rank[i]).to(dtype)
        case.deltas[i] = MaterialisedWeight(own, low_rank[i].bias)
    assert isinstance(low_rank[2], SeveralTasks)
    case.deltas[5] = replace(low_rank[2].folded(dtype), bias=None)
    y = _fused(case)
    torch.testing.assert_close(y.double(), case.expected(), atol=atol, rtol=rtol)
    torch.testing.assert_close(y, _reference(case), atol=atol, rtol=rtol)


@pytest.mark.skipif(INTERPRETED, reason="in NumPy's products a row's bits depend on its place in the tile")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_has_the_same_bits_alone_and_in_any_company(dtype: torch.dtype) -> None:
    case = Case.random((0, 34, 68, 102, 136), 96, 64, 12, dtype)
    whole = _fused(case)
    for i, delta in enumerate(case.deltas):
        for rows in (1, 3, 34):
            part = slice(34 * i + 34 - rows, 34 * i + 34)
            alone = Case(case.x[part], case.weight, [delta], (0, rows))
            assert torch.equal(_fused(alone), whole[part])


@pytest.mark.filterwarnings("ignore:invalid value")
def test_rows_that_are_not_finite_harm_no_others() -> None:
    case = Case.random((0, 20, 40), 32, 32, 4, torch.float32)
    before = _fused(case)
    case.x[7] = float("nan")
    case.x[25] = float("inf")
    after = _fused(case)
    others = [row for row in range(40) if row not in (7, 25)]
    assert torch.equal(after[others], before[others])
    assert not after[[7, 25]].isfinite().any()


def test_offsets_that_do_not_cover_the_rows_are_refused() -> None:
    case = Case.random((0, 4), 4, 4, 1, torch.float32).to(DEVICE)
    with pytest.raises(ValueError, match="offsets"), backend("fused"):
        segmented_linear(case.x, case.weight, case.deltas, (0, 3))


def test_a_linear_by_one_weight_has_a_plan_that_fits_whatever_was_asked_before() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, bias = (torch.randn(shape, generator=generator).to(DEVICE) for shape in ((40, 24), (40,)))
    x = torch.randn(300, 24, generator=generator).to(DEVICE)

    def check(rows: int, bias: Tensor | None) -> None:
        with backend("fused"):
            y = linear(x[:rows], weight, bias)
        expected = torch.nn.functional.linear(
            x[:rows].cpu(), weight.cpu(), None if bias is None else bias.cpu()
        )
        torch.testing.assert_close(y.cpu(), expected, atol=2e-5, rtol=1e-4)

    for rows in (3, 17, 3, 300):  # of 300 rows no plan is kept
        check(rows, bias)
        check(rows, None)
    weight.mul_(-2)  # other numbers in the same memory
    check(3, bias)
