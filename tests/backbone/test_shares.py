"""A batch computed in shares and portions: every sample once, in order, and nothing left changed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from mass_serve.backbone.packed import Packed
from mass_serve.backbone.shares import SAMPLES_PER_SHARE, TOKENS_PER_PORTION, in_shares
from mass_serve.kernels.backend import backend, backend_for


@pytest.fixture(autouse=True)
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def of_samples(count: int) -> Tensor:
    """A batch of short samples, each of which holds its own number."""
    return torch.arange(count).unsqueeze(1).repeat(1, 3)


def slices_of(batch: Tensor | Packed) -> list[slice]:
    """Returns what `in_shares` runs of a batch, in the batch's order."""
    return in_shares(lambda samples: samples, batch)


@pytest.mark.parametrize("samples", [1, 2 * SAMPLES_PER_SHARE - 1, 2 * SAMPLES_PER_SHARE, 37])
def test_every_sample_is_computed_once_and_in_its_place(samples: int) -> None:
    batch = of_samples(samples)
    calls: list[slice] = []

    def double(share: slice) -> Tensor:
        calls.append(share)
        return batch[share] * 2

    assert torch.equal(torch.cat(in_shares(double, batch)), batch * 2)
    assert len(calls) == max(1, min(4, samples // SAMPLES_PER_SHARE))


def test_shares_divide_the_threads_and_give_them_back() -> None:
    batch = of_samples(2 * SAMPLES_PER_SHARE)
    assert in_shares(lambda _share: torch.get_num_threads(), batch) == [2, 2]
    assert torch.get_num_threads() == 4


def test_inference_mode_reaches_the_shares() -> None:
    batch = of_samples(4 * SAMPLES_PER_SHARE)
    with torch.inference_mode():
        assert in_shares(lambda _share: torch.is_inference_mode_enabled(), batch) == [True] * 4
    assert in_shares(lambda _share: torch.is_inference_mode_enabled(), batch) == [False] * 4


def test_the_backend_that_was_chosen_reaches_the_shares() -> None:
    batch = of_samples(4 * SAMPLES_PER_SHARE)
    with backend("fused"):
        assert in_shares(lambda _share: backend_for(batch.device), batch) == ["fused"] * 4
    assert in_shares(lambda _share: backend_for(batch.device), batch) == ["reference"] * 4


def test_an_error_in_one_share_is_the_callers_and_changes_nothing() -> None:
    batch = of_samples(4 * SAMPLES_PER_SHARE)

    def fail_on_the_last(share: slice) -> Tensor:
        if share.stop == len(batch):
            raise FloatingPointError("no")
        return batch[share]

    with pytest.raises(FloatingPointError):
        in_shares(fail_on_the_last, batch)
    assert torch.get_num_threads() == 4
    assert torch.equal(torch.cat(in_shares(lambda share: batch[share], batch)), batch)


@pytest.mark.parametrize("threads", [1, 2])
def test_portions_have_no_more_tokens_than_one_may_have(threads: int) -> None:
    torch.set_num_threads(threads)
    lengths = [TOKENS_PER_PORTION // 4] * 9 + [1, TOKENS_PER_PORTION, TOKENS_PER_PORTION - 1, 1, 1]
    packed = Packed(torch.zeros(sum(lengths), 1), tuple(lengths))
    found = slices_of(packed)
    assert [sample for own in found for sample in range(own.start, own.stop)] == list(range(len(lengths)))
    assert all(sum(lengths[own]) <= TOKENS_PER_PORTION for own in found)
    assert any(sum(lengths[own]) == TOKENS_PER_PORTION for own in found)


def test_a_sample_of_more_tokens_is_a_portion_by_itself() -> None:
    torch.set_num_threads(1)
    batch = torch.zeros(3, TOKENS_PER_PORTION + 1)
    assert slices_of(batch) == [slice(0, 1), slice(1, 2), slice(2, 3)]
