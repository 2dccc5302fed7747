"""The fused attention against its reference and against float64, and a sample's bits beside others."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import pytest
import torch
from torch import Tensor

from mass_serve.kernels.attention.fused import first_attention, planned_attention
from mass_serve.kernels.attention.reference import attend, attend_near, attend_once, join_heads, split_heads
from mass_serve.kernels.segment_plan import SegmentPlan
from tests.interpreter import DEVICE

RECORD = 1
TOLERANCES = [(torch.float32, 1e-5, 1e-5), (torch.bfloat16, 1e-2, 1e-2), (torch.float16, 2e-3, 2e-3)]


def _plan(samples: int, used: int) -> SegmentPlan:
    """A plan of which `used` samples have a segment."""
    plan = SegmentPlan(samples, 1, RECORD, DEVICE)
    plan.update([0, used], [torch.zeros(RECORD, dtype=torch.int64)], [False])
    return plan


def _of_texts(lengths: Sequence[int], used: int | None = None) -> SegmentPlan:
    """The plan of the tokens of texts, of which the first `used` have a segment; all if left out."""
    texts = _plan(len(lengths), len(lengths) if used is None else used)
    return texts.of_tokens([0, *accumulate(lengths)])


def _of_each(x: Tensor, lengths: Sequence[int]) -> list[Tensor]:
    """The tokens [n, D] of each text, of x [N, 1, D]."""
    return [x[stop - length : stop, 0] for length, stop in zip(lengths, accumulate(lengths), strict=True)]


def _wanted(qkv: Tensor, heads: int, reach: int | None = None) -> Tensor:
    """[n, 3 D] -> [n, D], by the definition in float64."""
    q, k, v = (split_heads(part[None].double().cpu(), heads) for part in qkv.chunk(3, dim=-1))
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if reach is not None:
        places = torch.arange(len(qkv))
        scores[..., (places[:, None] - places).abs() > reach] = -torch.inf
    return join_heads(scores.softmax(-1) @ v)[0]


@pytest.mark.parametrize(("dtype", "atol", "rtol"), TOLERANCES)
@pytest.mark.parametrize(
    ("tokens", "heads", "width"), [(1, 2, 8), (50, 1, 64), (197, 1, 64), (33, 2, 72), (17, 3, 32)]
)
def test_every_token_attends_to_its_sample(
    tokens: int, heads: int, width: int, dtype: torch.dtype, atol: float, rtol: float
) -> None:
    torch.manual_seed(tokens)
    qkv = torch.randn(2, tokens, 3 * heads * width, device=DEVICE).to(dtype)
    found = planned_attention(qkv, _plan(2, 2), heads=heads)
    assert found.dtype == dtype
    for of_sample, own in zip(found, qkv, strict=True):
        torch.testing.assert_close(of_sample.double().cpu(), _wanted(own, heads), atol=atol, rtol=rtol)


def test_it_agrees_with_the_reference() -> None:
    torch.manual_seed(0)
    qkv, plan = torch.randn(3, 40, 3 * 64, device=DEVICE), _plan(3, 3)
    q, k, v = (split_heads(part, 2) for part in qkv.chunk(3, dim=-1))
    pairs = [
        (planned_attention(qkv, plan, heads=2), attend(q, k, v)),
        (planned_attention(qkv, plan, heads=2, reach=5), attend_near(q, k, v, 5)),
        (first_attention(qkv[:, :1, :64], qkv[..., 64:], plan, heads=2), attend_once(q[:, :, :1], k, v)),
    ]
    for found, wanted in pairs:
        torch.testing.assert_close(found, join_heads(wanted), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("reach", [None, 0, 1, 20, 64, 500])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_texts_of_any_lengths_attend_to_the_near_tokens(reach: int | None, dtype: torch.dtype) -> None:
    """The tiles of a sample of 300 have keys that are near to some of their queries, and to none."""
    torch.manual_seed(0)
    lengths = (3, 1, 300, 64)
    qkv = torch.randn(sum(lengths), 1, 3 * 32, device=DEVICE).to(dtype)
    plan = _of_texts(lengths)
    found = _of_each(planned_attention(qkv, plan, heads=2, reach=reach), lengths)
    first_rows = torch.tensor([0, *accumulate(lengths)][:-1], device=DEVICE)
    firsts = first_attention(qkv[first_rows, :, :32], qkv[:, :, 32:], plan, heads=2, reach=reach)
    atol = 1e-5 if dtype == torch.float32 else 1e-2
    for own, first, of_text in zip(found, firsts, _of_each(qkv, lengths), strict=True):
        wanted = _wanted(of_text, 2, reach)
        torch.testing.assert_close(own.double().cpu(), wanted, atol=atol, rtol=atol)
        torch.testing.assert_close(first.double().cpu(), wanted[:1], atol=atol, rtol=atol)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("reach", [None, 16])
def test_a_text_has_the_same_bits_whatever_stands_beside_it(dtype: torch.dtype, reach: int | None) -> None:
    torch.manual_seed(1)
    lengths = (5, 150, 1, 70)
    texts = [torch.randn(length, 1, 3 * 32, device=DEVICE).to(dtype) for length in lengths]
    together = planned_attention(torch.cat(texts), _of_texts(lengths), heads=1, reach=reach)
    for own, text in zip(_of_each(together, lengths), texts, strict=True):
        alone = planned_attention(text, _of_texts([len(text)]), heads=1, reach=reach)
        assert torch.equal(alone[:, 0], own)


@pytest.mark.parametrize("samples", [1, 4])
def test_an_image_has_the_same_bits_in_every_batch(samples: int) -> None:
    torch.manual_seed(2)
    qkv = torch.randn(4, 67, 3 * 64, device=DEVICE).bfloat16()
    q, kv = qkv[:, :1, :64], qkv[..., 64:]
    together, firsts = (
        planned_attention(qkv, _plan(4, 4), heads=1),
        first_attention(q, kv, _plan(4, 4), heads=1),
    )
    some = slice(4 - samples, 4)
    plan = _plan(samples, samples)
    assert torch.equal(planned_attention(qkv[some], plan, heads=1), together[some])
    assert torch.equal(first_attention(q[some], kv[some], plan, heads=1), firsts[some])


def test_the_tail_is_zero_and_nothing_of_it_is_read() -> None:
    qkv = torch.randn(3, 20, 3 * 16, device=DEVICE)
    qkv[1:] = torch.nan
    plan = _plan(3, 1)
    for found in (
        planned_attention(qkv, plan, heads=1),
        first_attention(qkv[:, :1, :16], qkv[..., 16:], plan, heads=1),
    ):
        assert found[0].isfinite().all()
        assert found[1:].eq(0).all()


@pytest.mark.parametrize("reach", [None, 4])
def test_the_tail_of_texts_is_zero_and_nothing_of_it_is_read(reach: int | None) -> None:
    lengths = (20, 70, 3)
    qkv = torch.randn(sum(lengths), 1, 3 * 16, device=DEVICE)
    qkv[20:] = torch.nan
    plan = _of_texts(lengths, used=1)
    found = planned_attention(qkv, plan, heads=1, reach=reach)
    assert found[:20].isfinite().all()
    assert found[20:].eq(0).all()
    firsts = first_attention(qkv[[0, 20, 90], :, :16], qkv[..., 16:], plan, heads=1, reach=reach)
    assert firsts[0].isfinite().all()
    assert firsts[1:].eq(0).all()


@pytest.mark.parametrize("reach", [None, 4])
def test_the_first_token_of_an_empty_text_is_zero(reach: int | None) -> None:
    lengths = (0, 5, 0, 3, 0)
    qkv = torch.randn(sum(lengths), 1, 3 * 16, device=DEVICE)
    plan = _of_texts(lengths)
    queries = torch.full((len(lengths), 1, 16), torch.nan, device=DEVICE)
    queries[[1, 3]] = qkv[[0, 5], :, :16]
    firsts = first_attention(queries, qkv[..., 16:], plan, heads=1, reach=reach)
    assert firsts[[0, 2, 4]].eq(0).all()
    assert torch.equal(firsts[[1, 3]], planned_attention(qkv, plan, heads=1, reach=reach)[[0, 5]])


def test_what_is_not_finite_stays_so_in_its_sample() -> None:
    qkv = torch.randn(2, 20, 3 * 16, device=DEVICE)
    qkv[0, 7] = torch.nan
    found = planned_attention(qkv, _plan(2, 2), heads=1)
    assert found[0].isnan().all()
    assert found[1].isfinite().all()
