"""Answers that outlive their batch: the same numbers, in memory of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass

import pytest
import torch
from torch import Tensor

from mass_serve.engine import AnyAnswer, Engine, Query, answer_nbytes, kept
from mass_serve.engine.by_task import ByTask
from mass_serve.engine.execution import Execution
from mass_serve.router import PAPER, ModeName
from tests import tiny


def tensors_in(found: object) -> Iterator[Tensor]:
    """Every tensor that an answer holds, wherever it is."""
    if isinstance(found, Tensor):
        yield found
    elif isinstance(found, ByTask):
        yield found.tensor
    elif isinstance(found, tuple):
        for one in found:
            yield from tensors_in(one)
    elif is_dataclass(found):
        for field in fields(found):
            yield from tensors_in(getattr(found, field.name))


def answers(mode: ModeName) -> list[AnyAnswer]:
    engine = Engine(tiny.loaded_store(mode=mode, threshold=0.15), Execution.LOW_RANK, 1 << 30)
    routed, (named, embedded) = tiny.pixels(8)[:6], tiny.pixels(8)[6:]
    task = (next(iter(engine.tasks)),)
    queries = [*map(Query, routed), Query(named, task), Query(embedded, task, embeds=True)]
    return [answer for answer in engine.classify_batch(queries).answers if answer is not None]


@pytest.mark.parametrize("mode", ["exact", "fast", PAPER])
def test_a_kept_answer_has_the_same_numbers_and_nothing_of_its_batch(mode: ModeName) -> None:
    for answer in answers(mode):
        before, after = list(tensors_in(answer)), list(tensors_in(mine := kept(answer)))
        assert all(torch.equal(*both) for both in zip(before, after, strict=True))
        assert all(one.untyped_storage().nbytes() == one.nbytes for one in after)
        assert {one.data_ptr() for one in before}.isdisjoint(one.data_ptr() for one in after)
        assert answer_nbytes(mine) > sum(one.nbytes for one in after)
