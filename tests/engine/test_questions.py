"""What is asked about the images of a request: every task's answer, and one task for all images."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from mass_serve.engine import Classification, Engine, Pool, Query, Question, unsplit
from mass_serve.engine.execution import Execution
from mass_serve.router import MODE_NAMES, ModeName
from tests import tiny

NAMES = tuple(f"task{i}" for i in range(4))
PIXELS = tiny.pixels(24)
FORMS = [
    ("low_rank", torch.float32),
    ("materialised", torch.float32),
    ("low_rank", torch.bfloat16),
    ("low_rank", torch.int8),
]


def engine_of(
    mode: ModeName = "exact", execution: str = "low_rank", cache: int = 1 << 30, **store: Any
) -> Engine:
    loaded = tiny.loaded_store(mode=mode, **({"threshold": 0.15} | store))
    return Engine(loaded, Execution(execution), cache)


def asked(engine: Engine, question: Question, pixels: list[Tensor]) -> list[Classification]:
    return engine.classify_batch(question.queries(pixels, engine.tasks)).all_answers()


def same_bits(one: Classification, other: Classification) -> bool:
    """Equality of everything that a caller is told, to the last bit."""
    told = [
        (a.task, a.task_revision, a.expert_set, a.coefficients, a.residuals, a.familiarity, a.unrouted)
        for a in (one, other)
    ]
    return told[0] == told[1] and torch.equal(one.logits, other.logits)


def images(count: int) -> list[Image.Image]:
    return [Image.fromarray(pixels.permute(1, 2, 0).numpy()) for pixels in PIXELS[:count]]


# Every task's answer


@pytest.mark.parametrize(("execution", "dtype"), FORMS)
def test_each_answer_has_the_bits_that_the_named_task_gives_alone(execution: str, dtype: torch.dtype) -> None:
    engine = engine_of(execution=execution, dtype=dtype)
    answers = asked(engine, Question(answer="each"), PIXELS[:5])
    expected = [
        engine.classify_batch([Query(image, (name,))]).all_answers()[0]
        for image in PIXELS[:5]
        for name in NAMES
    ]
    assert [answer.task for answer in answers] == [*NAMES] * 5
    assert all(map(same_bits, answers, expected))


def test_each_answers_in_the_order_in_which_the_tasks_are_named() -> None:
    answers = engine_of().classify(images(2), tasks=["task3", "task1"], answer="each")
    assert [answer.task for answer in answers] == ["task3", "task1"] * 2
    assert {answer.passes for answer in answers} == {1.0}, "nothing is routed"
    assert {answer.familiarity for answer in answers} == {None}


def test_each_of_one_task_is_that_task_named() -> None:
    engine = engine_of()
    each = engine.classify(images(3), ["task2"], answer="each")
    assert all(map(same_bits, each, engine.classify(images(3), ["task2"])))


def test_each_is_right_where_not_all_tasks_fit_the_cache_at_once() -> None:
    roomy, narrow = engine_of(), engine_of(cache=1)
    each = Question(answer="each")
    assert all(map(same_bits, asked(roomy, each, PIXELS[:3]), asked(narrow, each, PIXELS[:3])))


@pytest.mark.parametrize("kind", ["bytes", "normalised", "both"])
def test_an_image_for_many_tasks_is_prepared_once(kind: str) -> None:
    """However its pixels came, and beside the same image that came a second time."""
    engine = engine_of()
    pixels = [PIXELS[0], PIXELS[1], PIXELS[0].clone()]
    for place in {"bytes": [], "normalised": [0, 1, 2], "both": [1]}[kind]:
        pixels[place] = engine.preprocessing.normalise(pixels[place])
    queries = Question(answer="each").queries(pixels, engine.tasks)
    whole = engine._inputs(queries)
    for row, query in enumerate(queries):
        alone = engine._inputs([query])
        assert isinstance(whole, Tensor)
        assert isinstance(alone, Tensor)
        assert torch.equal(whole[row], alone[0])


# One task for all images


@pytest.mark.parametrize("mode", MODE_NAMES)
@pytest.mark.parametrize("tasks", [None, ("task0", "task2")])
def test_same_task_of_one_image_is_the_ordinary_answer_to_the_last_bit(
    mode: ModeName, tasks: tuple[str, ...] | None
) -> None:
    engine = engine_of(mode)
    for image in PIXELS[:4]:
        (one,) = asked(engine, Question(tasks, same_task=True), [image])
        (other,) = asked(engine, Question(tasks), [image])
        assert same_bits(one, other)
        # A pool of one, too, which no question makes.
        (alone,) = engine.classify_batch([Query(image, tasks, pool=Pool())]).all_answers()
        assert same_bits(alone, other)


@pytest.mark.parametrize("mode", MODE_NAMES)
@pytest.mark.parametrize("calibrated", [False, True])
def test_one_expert_set_is_chosen_for_each_part_and_one_task_answers(
    mode: ModeName, calibrated: bool
) -> None:
    engine = engine_of(mode, calibrated=calibrated)
    own = {answer.task for answer in asked(engine, Question(), PIXELS)}
    assert len(own) > 1, "by themselves they are found to be of several tasks"
    pooled = asked(engine, Question(same_task=True), PIXELS)
    parts = Counter(answer.part for answer in pooled)
    assert pooled[0].part == (None if mode == "paper" else 0)
    assert len(parts) < len(own), "so few parts that tasks were chosen together"
    for part in parts:
        of_part = [answer for answer in pooled if answer.part == part]
        assert len({(answer.task, answer.expert_set) for answer in of_part}) == 1
        assert len({tuple(answer.coefficients.items()) for answer in of_part}) == 1
    assert len({answer.familiarity for answer in pooled}) > 1, "that stays each image's own"


def test_inputs_of_two_tasks_are_answered_as_each_part_is_by_itself() -> None:
    engine = engine_of("balanced")
    pooled = asked(engine, Question(same_task=True), PIXELS)
    parts = {answer.part for answer in pooled}
    assert len(parts) > 1
    for part in parts:
        rows = [row for row, answer in enumerate(pooled) if answer.part == part]
        alone = asked(engine, Question(same_task=True), [PIXELS[row] for row in rows])
        assert all(same_bits(pooled[row], one) for row, one in zip(rows, alone, strict=True))
        assert {one.part for one in alone} <= {0, None}, "what is alone has no part"


def test_the_papers_router_splits_nothing() -> None:
    answers = asked(engine_of("paper"), Question(same_task=True), PIXELS)
    assert {answer.part for answer in answers} == {None}


@pytest.mark.parametrize("mode", MODE_NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_a_pool_has_the_same_bits_in_any_company(mode: ModeName, dtype: torch.dtype) -> None:
    engine = engine_of(mode, dtype=dtype)
    ours = Question(same_task=True).queries(PIXELS[:5], engine.tasks)
    theirs = Question(("task0", "task3"), same_task=True).queries(PIXELS[5:8], engine.tasks)
    single = [Query(image) for image in PIXELS[8:14]]
    alone = engine.classify_batch(ours).all_answers()
    crowd = [*single[:3], *theirs, *ours, *single[3:]]
    together = engine.classify_batch(crowd).all_answers()
    assert all(map(same_bits, together[6:11], alone))
    assert all(map(same_bits, together[3:6], engine.classify_batch(theirs).all_answers()))
    assert all(map(same_bits, [*together[:3], *together[11:]], engine.classify_batch(single).all_answers()))


@pytest.mark.parametrize("choice", ["max", "mean", "router"])
def test_the_heads_of_a_merged_set_are_chosen_among_by_all_images(choice: str) -> None:
    engine = engine_of("paper", threshold=0.0, head_choice=choice)
    pooled = asked(engine, Question(same_task=True), PIXELS[:6])
    winner, expert_set = pooled[0].task, pooled[0].expert_set
    assert len(expert_set) == 3
    assert {answer.task for answer in pooled} == {winner}
    if choice == "router":
        assert winner == max(expert_set, key=lambda name: pooled[0].coefficients[name])


def test_no_evidence_is_needed_where_one_task_is_named() -> None:
    engine = engine_of()
    pooled = engine.classify(images(3), ["task1"], same_task=True)
    assert all(map(same_bits, pooled, engine.classify(images(3), ["task1"])))


def test_an_image_whose_output_is_not_finite_leaves_its_pool_without_an_answer() -> None:
    engine = engine_of()
    broken = engine.preprocessing.normalise(PIXELS[0]) * float("nan")
    pool = Question(same_task=True).queries([PIXELS[1], broken], engine.tasks)
    report = engine.classify_batch([Query(PIXELS[2]), *pool])
    assert [answer is None for answer in report.answers] == [False, True, True]


def test_a_pool_is_never_split_and_other_queries_always_are() -> None:
    pool, other = Pool(), Pool()
    keys = [None, None, pool, pool, other, None, other]
    runs = unsplit([Query(PIXELS[0], None, key) for key in keys])
    assert [len(run) for run in runs] == [1, 1, 2, 1, 1, 1]


# What contradicts itself


@pytest.mark.parametrize(
    ("asking", "words"),
    [
        ({"answer": "all"}, "answer must be 'best' or 'each', not 'all'"),
        ({"answer": "each", "same_task": True}, "leave one out"),
        ({"answer": "each", "tasks": ("a", "b", "a")}, "names 'a' more than once"),
        ({"tasks": ()}, "'tasks' is empty"),
        ({"tasks": (), "answer": "each"}, "'tasks' is empty"),
    ],
)
def test_a_question_that_contradicts_itself_is_refused(asking: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Question(**asking)


@pytest.mark.parametrize("answer", ["best", "each"])
def test_a_task_that_is_not_served_is_refused(answer: Any) -> None:
    with pytest.raises(ValueError, match="there is no task 'cats'; there are task0"):
        engine_of().classify(images(1), ["task0", "cats"], answer=answer)


def test_a_pool_has_one_set_of_candidates() -> None:
    pool = Pool()
    with pytest.raises(ValueError, match="same candidates"):
        engine_of().classify_batch([Query(PIXELS[0], None, pool), Query(PIXELS[1], ("task0",), pool)])


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        (Question(), 3),
        (Question(("a",), same_task=True), 3),
        (Question(answer="each"), 12),
        (Question(("a", "b"), "each"), 6),
    ],
)
def test_answers_are_counted_before_there_are_any(question: Question, expected: int) -> None:
    assert question.answers(3, NAMES) == expected
