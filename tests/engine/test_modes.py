"""A mode that a query asks for: as an engine that was loaded in it answers, whatever else the batch has."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from mass_serve.engine import AnyAnswer, Classification, Engine, ModeName, Question
from mass_serve.engine.execution import Execution
from mass_serve.router import MODES, PAPER
from tests import tiny

PIXELS = tiny.pixels(9)


def engine_of(mode: ModeName) -> Engine:
    return Engine(tiny.loaded_store(mode=mode, threshold=0.15), Execution.LOW_RANK, 1 << 30)


def facts(answer: AnyAnswer | None) -> tuple[Any, ...]:
    """All that is answered, bit by bit."""
    assert isinstance(answer, Classification)
    others = [(one.task, one.coefficient, one.logits.tolist()) for one in answer.alternatives]
    routing = (answer.expert_set, answer.coefficients, answer.residuals, answer.familiarity)
    return answer.task, answer.logits.tolist(), others, *routing, answer.passes


def answers(engine: Engine, question: Question) -> list[tuple[Any, ...]]:
    return list(map(facts, engine.classify_batch(question.queries(PIXELS, engine.tasks)).all_answers()))


@pytest.fixture
def all_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    """However far a task's second passes end from whole ones, in modes that resume."""
    monkeypatch.setattr("mass_serve.engine.evidence_search.FARTHEST_RESUMED", math.inf)


@pytest.mark.usefixtures("all_resume")
@pytest.mark.parametrize("mode", MODES)
def test_it_answers_as_an_engine_of_that_mode(mode: ModeName) -> None:
    # It has measured what resuming costs, which an engine of another mode leaves to the store's figures.
    asked, own = engine_of("fast"), engine_of(mode)
    assert answers(asked, Question(mode=mode)) == answers(own, Question())


@pytest.mark.usefixtures("all_resume")
def test_modes_share_a_batch_and_change_nothing_in_each_other() -> None:
    engine = engine_of("fast")
    alone = {mode: answers(engine, Question(mode=mode)) for mode in MODES}
    mixed = [Question(mode=mode).queries(PIXELS, engine.tasks) for mode in MODES]
    together = engine.classify_batch([query for queries in zip(*mixed, strict=True) for query in queries])
    found = map(facts, together.all_answers())
    for sample in range(len(PIXELS)):
        assert [next(found) for _ in MODES] == [alone[mode][sample] for mode in MODES]
    costs = {mode: sum(one[-1] for one in own) for mode, own in alone.items()}
    assert costs["one_pass"] < costs["fast"] < costs["balanced"] < costs["exact"]


def test_the_engines_own_mode_comes_first_and_is_that_of_who_does_not_say() -> None:
    engine = engine_of("balanced")
    assert engine.modes == ("balanced", "one_pass", "fast", "exact")
    assert answers(engine, Question()) == answers(engine, Question(mode="balanced"))


def test_the_papers_router_is_by_itself() -> None:
    paper = engine_of(PAPER)
    assert paper.modes == (PAPER,)
    assert answers(paper, Question(mode=PAPER)) == answers(paper, Question())
    refused: list[tuple[Engine, ModeName]] = [(paper, "fast"), (engine_of("fast"), PAPER)]
    for engine, mode in refused:
        with pytest.raises(ValueError, match=f"^mode must be one of .* here, not '{mode}'$"):
            engine.classify_batch(Question(mode=mode).queries(PIXELS, engine.tasks))


def test_a_pool_has_one_mode() -> None:
    engine = engine_of("fast")
    first, second, *_ = Question(same_task=True, mode="exact").queries(PIXELS, engine.tasks)
    with pytest.raises(ValueError, match="the same candidates, mode and priors"):
        engine.classify_batch([first, replace(second, mode="fast")])
    pooled = answers(engine, Question(same_task=True, mode="exact"))
    assert pooled == answers(engine_of("exact"), Question(same_task=True))


def test_a_mode_that_means_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^mode must be one of paper, one_pass, .*, not 'slow'$"):
        Question(mode="slow")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="with answer 'each' none is"):
        Question(answer="each", mode="fast")
