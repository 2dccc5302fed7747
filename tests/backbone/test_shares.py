"""A batch computed in shares side by side: every sample once, in order, and nothing left changed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from mass_serve.backbone.shares import SAMPLES_PER_SHARE, in_shares


@pytest.fixture(autouse=True)
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("samples", [1, 2 * SAMPLES_PER_SHARE - 1, 2 * SAMPLES_PER_SHARE, 37])
def test_every_sample_is_computed_once_and_in_its_place(samples: int) -> None:
    batch = torch.arange(samples)
    calls: list[slice] = []

    def double(share: slice) -> Tensor:
        calls.append(share)
        return batch[share] * 2

    assert torch.equal(in_shares(double, batch), batch * 2)
    assert len(calls) == max(1, min(4, samples // SAMPLES_PER_SHARE))


def test_shares_divide_the_threads_and_give_them_back() -> None:
    batch = torch.zeros(2 * SAMPLES_PER_SHARE)
    used = in_shares(lambda _share: torch.tensor([torch.get_num_threads()]), batch)
    assert used.tolist() == [2, 2]
    assert torch.get_num_threads() == 4


def test_inference_mode_reaches_the_shares() -> None:
    batch = torch.zeros(4 * SAMPLES_PER_SHARE)
    with torch.inference_mode():
        assert in_shares(lambda share: batch[share] + int(torch.is_inference_mode_enabled()), batch).all()
    assert not in_shares(lambda share: batch[share] + int(torch.is_inference_mode_enabled()), batch).any()


def test_an_error_in_one_share_is_the_callers_and_changes_nothing() -> None:
    batch = torch.arange(4 * SAMPLES_PER_SHARE)

    def fail_on_the_last(share: slice) -> Tensor:
        if share.stop == len(batch):
            raise FloatingPointError("no")
        return batch[share]

    with pytest.raises(FloatingPointError):
        in_shares(fail_on_the_last, batch)
    assert torch.get_num_threads() == 4
    assert torch.equal(in_shares(lambda share: batch[share], batch), batch)
