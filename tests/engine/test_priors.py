"""Priors: what a caller says of tasks before an input is looked at."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from mass_serve.engine import Engine, Priors, Query, Question, UnknownTaskError
from mass_serve.engine.execution import Execution
from mass_serve.router import MODE_NAMES, PAPER, ModeName
from tests import tiny

PIXELS = tiny.pixels(8)
NAMES = ("task0", "task1", "task2", "task3")


def engine_of(mode: ModeName = "balanced") -> Engine:
    return Engine(tiny.loaded_store(mode=mode, threshold=0.15), Execution.LOW_RANK, 1 << 30)


def coefficients(engine: Engine, question: Question, row: int = 0) -> torch.Tensor:
    """Every task's coefficient."""
    (answer,) = engine.classify_batch(question.queries([PIXELS[row]], engine.tasks)).all_answers()
    assert answer.evidence is not None
    return answer.evidence.routing_coefficients


def test_tasks_that_are_not_named_share_what_is_left() -> None:
    logs = Priors.of({"task1": 0.7}).log_priors(NAMES)
    assert {name: math.exp(value) for name, value in logs.items()} == pytest.approx(
        {"task0": 0.1, "task1": 0.7, "task2": 0.1, "task3": 0.1}
    )


def test_what_is_said_to_be_impossible_is_one_in_a_million() -> None:
    logs = Priors.of({"task1": 1.0, "task2": 0.0}).log_priors(NAMES)
    assert [math.exp(logs[name]) for name in NAMES] == pytest.approx([1e-6, 1.0, 1e-6, 1e-6])


def test_evidence_is_weighed_by_priors_as_bayes_rule_says() -> None:
    engine = engine_of()
    own, shares = coefficients(engine, Question()), torch.tensor([0.1, 0.6, 0.2, 0.1])
    given = Priors.of(dict(zip(NAMES, shares.tolist(), strict=True)))
    found = coefficients(engine, Question(priors=given))
    torch.testing.assert_close(found, own * shares / (own * shares).sum(), atol=1e-5, rtol=1e-4)


def test_equal_priors_change_nothing() -> None:
    engine = engine_of()
    equal = Priors.of(dict.fromkeys(NAMES, 0.25))
    torch.testing.assert_close(
        coefficients(engine, Question(priors=equal)), coefficients(engine, Question()), atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize("mode", MODE_NAMES)
def test_a_strong_prior_decides_in_every_mode(mode: ModeName) -> None:
    engine = engine_of(mode)
    plain = engine.classify_batch(Question().queries(PIXELS, engine.tasks)).all_answers()
    other = next(name for name in NAMES if name != plain[0].task)
    taught = Question(priors=Priors.of({other: 1.0}))
    given = engine.classify_batch(taught.queries(PIXELS, engine.tasks)).all_answers()
    chosen = [other in (one.expert_set if mode == PAPER else (one.task,)) for one in given]
    before = [other in (one.expert_set if mode == PAPER else (one.task,)) for one in plain]
    assert sum(chosen) > sum(before)


def test_a_prior_counts_once_for_all_images_of_one_task() -> None:
    engine, priors = engine_of(), Priors.of({"task1": 0.6})
    pixels = [PIXELS[0]] * 2
    plain = Question(same_task=True).queries(pixels, engine.tasks)
    given = Question(same_task=True, priors=priors).queries(pixels, engine.tasks)
    before, after = (engine.classify_batch(one).all_answers()[0].evidence for one in (plain, given))
    assert before is not None
    assert after is not None
    logs = torch.tensor(list(priors.log_priors(NAMES).values()))
    torch.testing.assert_close(after.scores, before.scores + logs)
    assert torch.equal(after.own, before.own)


def test_an_answer_has_its_bits_beside_others_with_priors() -> None:
    engine = engine_of("exact")
    (alone,) = engine.classify_batch([Query(PIXELS[0])]).all_answers()
    crowd = [Query(PIXELS[1], priors=Priors.of({"task2": 0.9})), Query(PIXELS[0]), Query(PIXELS[2])]
    _, beside, _ = engine.classify_batch(crowd).all_answers()
    assert beside.coefficients == alone.coefficients
    assert torch.equal(beside.logits, alone.logits)


def test_the_prior_of_a_group_is_shared_by_its_tasks() -> None:
    question = Question(priors=Priors.of({"@pair": 0.6, "task0": 0.2}))
    known = question.among(NAMES, {"pair": ("task0", "task1")})
    assert known.priors is not None
    assert dict(known.priors.shares) == pytest.approx({"task0": 0.5, "task1": 0.3})


@pytest.mark.parametrize(
    ("priors", "said"),
    [
        ({}, "names no task"),
        ({"task1": -0.1}, "a number from 0 to 1, not -0.1"),
        ({"task1": math.nan}, "a number from 0 to 1, not nan"),
        ({"task1": math.inf}, "a number from 0 to 1, not inf"),
        ({"task1": 1.5}, "a number from 0 to 1, not 1.5"),
        ({"task1": 0.7, "task2": 0.4}, "at most 1, and sum to 1.1"),
        ({"task1": 0.0}, "sum to more than 0"),
    ],
)
def test_what_are_no_probabilities_is_refused(priors: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Priors.of(priors)


def test_priors_are_of_tasks_that_are_in_question() -> None:
    with pytest.raises(UnknownTaskError, match="there is no task 'cars'"):
        Question(priors=Priors.of({"cars": 0.8})).among(NAMES, {})
    with pytest.raises(ValueError, match="'task2', which is not among the 'tasks'"):
        Question(("task0", "task1"), priors=Priors.of({"task2": 0.8})).among(NAMES, {})
    with pytest.raises(ValueError, match="with answer 'each' all answer"):
        Question(answer="each", priors=Priors.of({"task2": 0.8}))


@pytest.mark.parametrize("changed", [{"priors": None}, {"priors": Priors.of({"task1": 0.3})}])
def test_a_pool_has_one_prior(changed: dict[str, Any]) -> None:
    engine = engine_of()
    priors = Priors.of({"task1": 0.6})
    first, second = Question(same_task=True, priors=priors).queries(PIXELS[:2], engine.tasks)
    assert isinstance(second, Query)
    other = Query(second.pixels, pool=second.pool, **changed)
    with pytest.raises(ValueError, match="the same candidates, mode and priors"):
        engine.classify_batch([first, other])
