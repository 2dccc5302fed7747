"""Alternatives: what the other tasks say that an input was tried with."""

from __future__ import annotations

import pytest
import torch

from mass_serve.engine import Classification, Engine, Pool, Query
from mass_serve.engine.execution import Execution
from mass_serve.router import PAPER, ModeName
from tests import tiny

PIXELS = tiny.pixels(12)


def answers(mode: ModeName, pools: list[Pool] | None = None) -> tuple[Engine, list[Classification]]:
    engine = Engine(tiny.loaded_store(mode=mode, threshold=0.15), Execution.LOW_RANK, 1 << 30)
    queries = [Query(one, pool=pools[row // 2] if pools else None) for row, one in enumerate(PIXELS)]
    return engine, engine.classify_batch(queries).all_answers()


@pytest.mark.parametrize("pools", [None, [Pool() for _ in range(6)]])
@pytest.mark.parametrize("mode", ["exact", PAPER])
def test_all_others_of_the_expert_set_are_alternatives_the_likeliest_first(
    mode: ModeName, pools: list[Pool] | None
) -> None:
    engine, found = answers(mode, pools)
    for answer in found:
        given = {one.task: one.coefficient for one in answer.alternatives}
        assert given.keys() == set(answer.expert_set) - {answer.task}
        assert given.items() <= answer.coefficients.items()
        assert list(given.values()) == sorted(given.values(), reverse=True)
        for one in answer.alternatives:
            assert one.labels == engine.tasks[one.task].labels
            assert one.task_revision == engine.tasks[one.task].revision
    assert any(answer.alternatives for answer in found)


def test_an_alternative_is_what_its_task_answers_if_it_is_named() -> None:
    engine, found = answers("exact")
    for pixels, answer in zip(PIXELS, found, strict=True):
        for one in answer.alternatives:
            (named,) = engine.classify_batch([Query(pixels, (one.task,))]).all_answers()
            assert torch.equal(named.logits, one.logits)
            assert torch.equal(named.probabilities, one.probabilities)
            assert named.alternatives == ()


@pytest.mark.parametrize("mode", ["one_pass", "fast", "balanced"])
def test_one_second_pass_has_no_alternative(mode: ModeName) -> None:
    assert all(answer.alternatives == () for answer in answers(mode)[1])
