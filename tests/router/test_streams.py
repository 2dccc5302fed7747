"""The evidence of streams: how it is remembered, and when a stream begins anew."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mass_serve.router import StreamEvidence

HALF_LIFE = 4.0


def of_task(task: int, lead: float = 12.0) -> Tensor:
    evidence = torch.zeros(3)
    evidence[task] = lead
    return evidence


def stream(*tasks: int) -> StreamEvidence:
    return StreamEvidence().followed_by([of_task(task) for task in tasks], HALF_LIFE)[0]


def test_nothing_is_remembered_of_a_new_stream() -> None:
    assert StreamEvidence().remembered(HALF_LIFE) is None


def test_evidence_counts_half_as_much_after_every_half_life() -> None:
    remembered = stream(0, 0, 0, 0, 0).remembered(HALF_LIFE)
    assert remembered is not None
    assert remembered.weights.tolist() == pytest.approx([0.5 ** (age / 4) for age in (5, 4, 3, 2, 1)])
    assert remembered.evidence[:, 0].eq(0).all(), "the best task's log likelihood is 0"


def test_what_counts_a_sixteenth_is_forgotten() -> None:
    remembered = stream(*[0] * 100).remembered(HALF_LIFE)
    assert remembered is not None
    assert len(remembered) == 16
    assert float(remembered.weights.min()) == pytest.approx(1 / 16)


def test_one_stranger_changes_nothing_and_two_begin_the_stream_anew() -> None:
    known, begins = stream(0, 0, 0).followed_by([of_task(2, 30.0)], HALF_LIFE)
    assert not begins
    assert len(known.inputs) == 4
    back, begins = known.followed_by([of_task(0)], HALF_LIFE)
    assert not begins
    assert len(back.inputs) == 5
    changed, begins = known.followed_by([of_task(2, 30.0)], HALF_LIFE)
    assert begins
    assert [int(own.argmax()) for own in changed.inputs] == [2, 2]


def test_inputs_of_one_request_are_as_many_as_of_several() -> None:
    inputs = [of_task(task, 20.0) for task in (0, 0, 1, 1, 1)]
    at_once, begins = StreamEvidence().followed_by(inputs, HALF_LIFE)
    one_by_one, began = StreamEvidence(), False
    for own in inputs:
        one_by_one, now = one_by_one.followed_by([own], HALF_LIFE)
        began |= now
    assert begins
    assert began
    assert [own.tolist() for own in at_once.inputs] == [own.tolist() for own in one_by_one.inputs]


def test_evidence_that_is_not_finite_is_passed_over() -> None:
    known = stream(0)
    for broken in (
        torch.full((3,), torch.nan),
        torch.tensor([torch.inf, 0.0, 0.0]),
        torch.full((3,), -torch.inf),
    ):
        assert known.followed_by([broken], HALF_LIFE) == (known, False)


def test_tasks_that_were_not_measured_are_as_unlikely_as_the_least_likely() -> None:
    known, _ = StreamEvidence().followed_by([torch.tensor([3.0, -torch.inf, 1.0])], HALF_LIFE)
    assert known.inputs[0].tolist() == [0.0, -2.0, -2.0]
