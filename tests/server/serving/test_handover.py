"""Results of other threads reach the event loop, and wake it once for many."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import Context
from typing import Any

import pytest

from mass_serve.server.serving.handover import Handover


def test_results_that_come_together_wake_the_loop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        loop, woken = asyncio.get_running_loop(), list[Any]()
        wake = loop.call_soon_threadsafe

        def counted(call: Callable[..., object], *args: Any, context: Context | None = None) -> object:
            woken.append(call)
            return wake(call, *args, context=context)

        monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
        handover, sources = Handover(), [Future[int]() for _ in range(8)]
        answers = [handover.future_of(source) for source in sources]
        for number, source in enumerate(sources):
            source.set_result(number)
        assert await asyncio.gather(*answers) == list(range(8))
        assert len(woken) == 1

    asyncio.run(run())


def test_the_loop_is_woken_again_for_later_results() -> None:
    async def run() -> None:
        handover = Handover()
        for number in range(3):
            source = Future[int]()
            answer = handover.future_of(source)
            await asyncio.to_thread(source.set_result, number)
            assert await answer == number

    asyncio.run(run())


def test_errors_and_cancellations_arrive_too() -> None:
    async def run() -> None:
        handover, failed, left = Handover(), Future[int](), Future[int]()
        error, cancelled = handover.future_of(failed), handover.future_of(left)
        failed.set_exception(ValueError("no"))
        left.cancel()
        with pytest.raises(ValueError, match="no"):
            await error
        with pytest.raises(asyncio.CancelledError):
            await cancelled

    asyncio.run(run())


def test_whoever_has_left_is_not_told() -> None:
    async def run() -> None:
        handover, source = Handover(), Future[int]()
        answer = handover.future_of(source)
        answer.cancel()
        source.set_result(1)
        await asyncio.sleep(0.01)
        assert answer.cancelled()

    asyncio.run(run())


def test_results_after_the_loops_end_are_for_nobody() -> None:
    source = Future[int]()

    async def run() -> None:
        Handover().future_of(source)

    asyncio.run(run())
    source.set_result(1)
    assert source.result() == 1


def test_the_next_loop_gets_its_results_after_one_that_closed_before() -> None:
    handover, source = Handover(), Future[int]()

    async def left() -> None:
        handover.future_of(source)

    async def asks() -> int:
        later = Future[int]()
        answer = handover.future_of(later)
        later.set_result(2)
        return await asyncio.wait_for(answer, 5)

    asyncio.run(left())
    source.set_result(1)
    assert asyncio.run(asks()) == 2
