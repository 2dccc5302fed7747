"""Answers to inputs that come again: found, counted, bounded, and never those of another question."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import numpy as np
import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families

from mass_serve.engine import EmbeddingQuestion, Priors, Question, ServingEngine
from mass_serve.server.errors import BatchFailedError
from mass_serve.server.operation.metrics import Metrics
from mass_serve.server.serving.caller import Caller
from mass_serve.server.serving.request_context import EncodedImages, ReadyImages, RequestContext
from tests.pictures import picture
from tests.server.fakes import FAIL, FakeEngine
from tests.server.serving.test_service import Bench, reds_of, with_service

ROOM = 1 << 20
EVERY = Question()


def with_cache(test: Callable[[Bench], Awaitable[None]], room: int = ROOM, **settings: object) -> None:
    async def opened(bench: Bench) -> None:
        bench.gate.set()
        await test(bench)

    with_service(opened, answer_cache_bytes=room, **settings)


async def ask(
    bench: Bench,
    *reds: int,
    question: Question = EVERY,
    key: str | None = None,
    engine: ServingEngine | None = None,
) -> list[int]:
    """The answers to images of these colours; `bench.engine.batches` tells which took a batch."""
    context = RequestContext("r", Caller(f"key:{key}", key))
    images = EncodedImages([picture(red) for red in reds])
    return reds_of(await bench.service.classify(images, question, context, engine=engine))


def figures(bench: Bench) -> tuple[float, float]:
    """Hits and misses, as a scrape has them."""
    assert isinstance(bench.service.observer, Metrics)
    families = text_string_to_metric_families(bench.service.observer.render().decode())
    values = {sample.name: sample.value for family in families for sample in family.samples}
    return values["mass_answer_cache_hits_total"], values["mass_answer_cache_misses_total"]


def test_an_input_that_comes_again_costs_no_batch_and_its_neighbours_are_answered_in_their_order() -> None:
    async def test(bench: Bench) -> None:
        assert await ask(bench, 5, 6) == [5, 6]
        assert await ask(bench, 5) == [5]
        assert await ask(bench, 7, 6, 8, 5) == [7, 6, 8, 5]
        assert sum(bench.engine.batches) == 4
        assert figures(bench) == (3, 4)
        assert bench.service.places()[0] == 0

    with_cache(test)


def test_nothing_is_kept_by_default() -> None:
    async def test(bench: Bench) -> None:
        bench.gate.set()
        assert await ask(bench, 5) == await ask(bench, 5) == [5]
        assert bench.engine.batches == [1, 1]
        assert figures(bench) == (0, 0)

    with_service(test)


def test_another_question_is_another_answer() -> None:
    async def test(bench: Bench) -> None:
        questions = [
            EVERY,
            Question(("signs",)),
            Question(("digits", "signs")),
            Question(mode="balanced"),
        ]
        for question in questions:
            await ask(bench, 5, question=question)
        assert len(bench.engine.batches) == len(questions)
        for question in questions:
            await ask(bench, 5, question=question)
        assert len(bench.engine.batches) == len(questions)
        # What each task alone says is what was asked of the one task before.
        await ask(bench, 5, question=Question(("signs", "digits"), answer="each"))
        assert bench.engine.batches[len(questions) :] == [1]

    with_cache(test)


def test_an_embedding_is_kept_beside_the_class_of_the_same_input() -> None:
    async def test(bench: Bench) -> None:
        await ask(bench, 5, question=Question(("signs",)))
        images, question = EncodedImages([picture(5)]), EmbeddingQuestion("signs")
        found = [await bench.service.embed(images, question, RequestContext("r")) for _ in range(2)]
        assert torch.equal(found[0].vectors[0], found[1].vectors[0])
        assert bench.engine.batches == [1, 1]

    with_cache(test)


def test_the_same_bytes_of_another_type_are_another_input() -> None:
    async def test(bench: Bench) -> None:
        pixels = np.zeros((1, 3, 8, 8), np.float32)
        for images in (ReadyImages(pixels), ReadyImages(pixels.astype(np.uint8)), ReadyImages(pixels)):
            await bench.service.classify(images, EVERY, RequestContext("r"))
        assert bench.engine.batches == [1, 1]

    with_cache(test)


def test_answers_that_depend_on_more_than_the_input_are_not_kept() -> None:
    """Inputs that are judged together, and inputs with priors."""

    async def test(bench: Bench) -> None:
        for question in (Question(same_task=True), Question(priors=Priors.of({"digits": 0.9}))):
            for _ in range(2):
                assert await ask(bench, 5, 6, question=question) == [5, 6]
        assert sum(bench.engine.batches) == 8
        assert figures(bench) == (0, 0)

    with_cache(test)


def test_a_new_engine_answers_itself_and_one_that_leaves_does_not_answer_for_it() -> None:
    async def test(bench: Bench) -> None:
        after = FakeEngine(store_revision="fake-2")
        await ask(bench, 5)
        await ask(bench, 5, engine=after)
        await ask(bench, 6)  # the one that leaves has requests yet
        await ask(bench, 5, 6, engine=after)
        assert bench.engine.batches == [1, 1]
        assert after.batches == [1, 1]

    with_cache(test)


def test_a_key_finds_nothing_of_another_key() -> None:
    async def test(bench: Bench) -> None:
        for key in ("ours", "theirs", "ours", "theirs", None):
            await ask(bench, 5, key=key)
        assert bench.engine.batches == [1, 1, 1]

    with_cache(test)


def test_memory_is_bounded_and_the_answer_goes_that_was_not_asked_for_longest() -> None:
    async def test(bench: Bench) -> None:
        cache = bench.service.answer_cache
        for red in (1, 2, 1, 3, 4):
            await ask(bench, red)
            assert cache.nbytes <= room
        assert len(bench.engine.batches) == 4
        await ask(bench, 4)
        assert len(bench.engine.batches) == 4
        await ask(bench, 2)
        assert len(bench.engine.batches) == 5

    async def one(bench: Bench) -> None:
        await ask(bench, 1)
        sizes.append(bench.service.answer_cache.nbytes)

    sizes: list[int] = []
    with_cache(one)
    room = 3 * sizes[0]
    with_cache(test, room)


def test_an_answer_that_failed_is_not_kept() -> None:
    async def test(bench: Bench) -> None:
        images = EncodedImages([picture(5, FAIL)])
        for _ in range(2):
            with pytest.raises(BatchFailedError):
                await bench.service.classify(images, EVERY, RequestContext("r"))
        assert bench.engine.batches == [1, 1]
        assert bench.service.answer_cache.nbytes == 0

    with_cache(test)
