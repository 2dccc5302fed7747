"""What a service remembers of streams and of its traffic: whose it is, how much, and what makes it forget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mass_serve.engine import Classification, Engine, Priors, Question
from mass_serve.engine.execution import Execution
from mass_serve.router import PAPER, ModeName
from mass_serve.server.errors import BadRequestError
from mass_serve.server.operation.metrics import Metrics
from mass_serve.server.serving.caller import Caller
from mass_serve.server.serving.learned_priors import LearnedPriors
from mass_serve.server.serving.streams import Streams
from tests import tiny

ALICE, BOB = Caller("key:alice"), Caller("key:bob")
PIXELS = tiny.pixels(24)
ASKED = Question(same_task=True)


def engine_of(mode: ModeName = "balanced") -> Engine:
    return Engine(tiny.loaded_store(mode=mode, threshold=0.15), Execution.LOW_RANK, 1 << 30)


class Bench:
    """Streams, and an engine that answers about them."""

    def __init__(self, most: int = 100, half_life: float = 8.0) -> None:
        self.engine = engine_of()
        self.metrics = Metrics({})
        self.streams = Streams(most, half_life, self.metrics)

    def ask(
        self, caller: Caller, name: str, pixels: Sequence[Tensor], question: Question = ASKED
    ) -> list[Classification]:
        """Asks about the next images of a stream."""
        stream = self.streams.of(caller, name, self.engine, question)
        queries = stream.question.queries(pixels, self.engine.tasks)
        answers = self.engine.classify_batch(queries).all_answers()
        stream.answered(answers)
        return answers

    def remembers(self, caller: Caller, name: str, question: Question = ASKED) -> int:
        """How many inputs of a stream are remembered."""
        remembered = self.streams.of(caller, name, self.engine, question).question.remembered
        return 0 if remembered is None else len(remembered)

    def count(self, metric: str) -> float:
        return self.metrics.registry.get_sample_value(metric) or 0.0


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture(scope="module")
def alike() -> list[Tensor]:
    """Images that one task has more evidence for than any other, each by itself."""
    engine = engine_of()
    answers = engine.classify_batch(Question().queries(PIXELS, engine.tasks)).all_answers()
    tasks = [answer.task for answer in answers]
    most = max(set(tasks), key=tasks.count)
    return [pixels for pixels, task in zip(PIXELS, tasks, strict=True) if task == most]


def test_images_of_a_stream_are_judged_with_those_before(bench: Bench, alike: list[Tensor]) -> None:
    (first,) = bench.ask(ALICE, "camera", alike[:1])
    (second,) = bench.ask(ALICE, "camera", alike[1:2])
    (alone,) = bench.ask(ALICE, "another", alike[1:2])
    assert second.part == 0
    assert second.task == first.task
    assert second.coefficients[second.task] > alone.coefficients[alone.task]
    assert torch.equal(second.logits, alone.logits), "its label is its own"
    assert bench.remembers(ALICE, "camera") == 2


def test_the_first_images_of_a_stream_are_answered_as_without_one(bench: Bench) -> None:
    ordinary = bench.engine.classify_batch(ASKED.queries(PIXELS[:3], bench.engine.tasks)).all_answers()
    begun = bench.ask(ALICE, "camera", PIXELS[:3])
    assert [one.coefficients for one in begun] == [one.coefficients for one in ordinary]
    assert [one.part for one in begun] == [one.part for one in ordinary]


def test_nobody_reads_or_changes_anothers_stream(bench: Bench, alike: list[Tensor]) -> None:
    bench.ask(ALICE, "camera", alike[:2])
    assert bench.remembers(BOB, "camera") == 0
    bench.ask(BOB, "camera", alike[2:3])
    assert bench.remembers(ALICE, "camera") == 2


def test_another_choice_of_tasks_and_another_revision_begin_anew(bench: Bench, alike: list[Tensor]) -> None:
    bench.ask(ALICE, "camera", alike[:2])
    some = replace(ASKED, tasks=("task0", "task2"))
    assert bench.remembers(ALICE, "camera", some) == 0
    bench.engine.store_revision = "another"
    assert bench.remembers(ALICE, "camera") == 0


def test_what_is_remembered_is_bounded(bench: Bench, alike: list[Tensor]) -> None:
    for _ in range(20):
        bench.ask(ALICE, "camera", alike[:3])
    assert bench.remembers(ALICE, "camera") == 32


def test_of_too_many_streams_the_oldest_of_who_has_most_goes(alike: list[Tensor]) -> None:
    bench = Bench(most=3)
    bench.ask(BOB, "camera", alike[:1])
    for name in ("a", "b", "c", "d"):
        bench.ask(ALICE, name, alike[:1])
    assert len(bench.streams) == 3
    assert bench.remembers(BOB, "camera") == 1
    assert [bench.remembers(ALICE, name) for name in ("a", "b", "c", "d")] == [0, 0, 1, 1]
    assert bench.count("mass_streams_dropped_total") == 2


def test_a_used_stream_outlives_one_that_is_not(alike: list[Tensor]) -> None:
    bench = Bench(most=2)
    for name in ("a", "b", "a", "c"):
        bench.ask(ALICE, name, alike[:1])
    assert [bench.remembers(ALICE, name) for name in ("a", "b", "c")] == [2, 0, 1]


def test_a_named_task_teaches_a_stream_nothing(bench: Bench, alike: list[Tensor]) -> None:
    bench.ask(ALICE, "camera", alike[:2], replace(ASKED, tasks=("task1",)))
    assert len(bench.streams) == 0


@pytest.mark.parametrize("name", ["", "a\nb", "a\x00", "x" * 129, "x" * 1_000_000, "\ud800"])
def test_names_that_are_none_are_refused(bench: Bench, name: str) -> None:
    with pytest.raises(BadRequestError, match="1 to 128 printable characters") as refused:
        bench.streams.of(ALICE, name, bench.engine, ASKED)
    assert len(str(refused.value)) < 300


def test_streams_may_be_off(bench: Bench) -> None:
    off = Streams(0, 8.0, bench.metrics)
    with pytest.raises(BadRequestError, match=r"remembers no streams \(max_streams\)"):
        off.of(ALICE, "camera", bench.engine, ASKED)


def test_the_papers_router_remembers_no_stream(bench: Bench) -> None:
    with pytest.raises(BadRequestError, match="searches in the mode paper"):
        bench.streams.of(ALICE, "camera", engine_of(PAPER), ASKED)


# Priors that traffic has taught


def answers_of(engine: Engine, question: Question, pixels: Sequence[Tensor]) -> list[Classification]:
    return engine.classify_batch(question.queries(pixels, engine.tasks)).all_answers()


def test_before_any_traffic_all_tasks_are_as_likely() -> None:
    shares = LearnedPriors(100).shares(["a", "b", "c", "d"])
    assert list(shares.values()) == [0.25] * 4


def test_what_comes_often_becomes_likelier(alike: list[Tensor]) -> None:
    engine, learned = engine_of(), LearnedPriors(100)
    for _ in range(10):
        learned.learn(Question(), engine, answers_of(engine, Question(), alike))
    (task,) = {answer.task for answer in answers_of(engine, Question(), alike)}
    shares = learned.shares(engine.tasks)
    assert shares[task] == max(shares.values()) > 0.25
    assert sum(shares.values()) == pytest.approx(1)
    taught = learned.asked(Question(), engine)
    (before,), (after,) = (answers_of(engine, one, alike[:1]) for one in (Question(), taught))
    assert after.coefficients[task] > before.coefficients[task]


def test_what_is_learned_does_not_confirm_itself(alike: list[Tensor]) -> None:
    engine, learned, blank = engine_of(), LearnedPriors(100), LearnedPriors(100)
    for _ in range(5):
        learned.learn(Question(), engine, answers_of(engine, learned.asked(Question(), engine), alike))
        blank.learn(Question(), engine, answers_of(engine, Question(), alike))
    assert learned.shares(engine.tasks) == pytest.approx(blank.shares(engine.tasks))


def test_a_task_that_only_the_next_revision_has_is_left_its_share() -> None:
    asked = LearnedPriors(100).asked(Question(), engine_of())
    assert asked.priors is not None
    logs = asked.priors.log_priors(["task0", "task1", "task2", "task3", "new"])
    assert list(logs.values()) == pytest.approx([math.log(1 / 5)] * 5)


def test_old_traffic_is_forgotten() -> None:
    engine, learned = engine_of(), LearnedPriors(1)
    for _ in range(20):
        learned.learn(Question(), engine, answers_of(engine, Question(), PIXELS))
    assert max(learned.shares(engine.tasks).values()) <= (2 + 1) / (2 + 4), "two inputs' worth is kept"


def test_who_names_tasks_teaches_nothing_and_who_has_priors_keeps_them(alike: list[Tensor]) -> None:
    engine, learned = engine_of(), LearnedPriors(100)
    some = Question(("task0", "task2"))
    learned.learn(some, engine, answers_of(engine, some, alike))
    assert set(learned.shares(engine.tasks).values()) == {0.25}
    own = Question(priors=Priors.of({"task1": 0.5}))
    assert learned.asked(own, engine) is own
    each = Question(answer="each")
    assert learned.asked(each, engine) is each
