"""Metrics beside the event loop."""

from __future__ import annotations

import asyncio
import threading

import pytest

from mass_serve.sandbox.bounds import REASONS
from mass_serve.server.operation.guarding_metrics import AGES, DROP_REASONS
from mass_serve.server.operation.metrics import Metrics
from mass_serve.server.operation.metrics_routes import Scrapes


class SlowMetrics(Metrics):
    """Takes until it is let go, and counts how often it was asked."""

    def __init__(self) -> None:
        super().__init__({})
        self.gate = threading.Event()
        self.renders = 0

    def render(self) -> bytes:
        self.renders += 1
        assert self.gate.wait(20)
        return super().render()


def test_those_who_ask_together_share_one_answer_and_the_loop_goes_on() -> None:
    metrics = SlowMetrics()
    scrapes = Scrapes(metrics)

    async def ask() -> list[bytes]:
        asking = [asyncio.ensure_future(scrapes.text()) for _ in range(5)]
        await asyncio.sleep(0.05)  # would not end if the loop were held up
        asking[0].cancel()
        metrics.gate.set()
        answers = await asyncio.gather(*asking[1:])
        await scrapes.text()
        return answers

    answers = asyncio.run(ask())
    assert all(b"mass_ready" in answer for answer in answers)
    assert metrics.renders == 2
    scrapes.close()


def test_an_error_of_one_scrape_is_not_tried_again_on_the_event_loop() -> None:
    class BrokenMetrics(SlowMetrics):
        def render(self) -> bytes:
            super().render()
            raise RuntimeError("a collector is broken")

    metrics = BrokenMetrics()
    metrics.gate.set()
    scrapes = Scrapes(metrics)
    with pytest.raises(RuntimeError, match="broken"):
        asyncio.run(scrapes.text())
    assert metrics.renders == 1
    scrapes.close()


def test_ages_and_bytes_are_asked_for_at_each_scrape() -> None:
    metrics = Metrics({})
    value = metrics.registry.get_sample_value
    assert [value("mass_oldest_seconds", {"what": what}) for what in AGES] == [0.0] * len(AGES)
    ages, held = {"load": 4.0}, [5]
    metrics.watch_ages(lambda: ages)
    metrics.watch_held_bytes(lambda: held[0])
    metrics.held_bytes_are_bounded(10)
    metrics.ages_are_bounded({what: float(number) for number, what in enumerate(AGES)})
    limits = [value("mass_oldest_limit_seconds", {"what": what}) for what in AGES]
    assert limits == list(range(len(AGES)))
    assert value("mass_oldest_seconds", {"what": "load"}) == 4.0
    ages["load"], held[0] = 6.0, 7
    assert value("mass_oldest_seconds", {"what": "load"}) == 6.0
    assert value("mass_oldest_seconds", {"what": "decode"}) == 0.0
    assert (value("mass_held_bytes"), value("mass_held_bytes_capacity")) == (7.0, 10.0)


def test_what_guards_is_counted_by_reason_and_begins_at_zero() -> None:
    metrics = Metrics({})
    value = metrics.registry.get_sample_value
    for reason in DROP_REASONS:
        assert value("mass_connections_dropped_total", {"reason": reason}) == 0.0
        metrics.connection_dropped(reason)
        assert value("mass_connections_dropped_total", {"reason": reason}) == 1.0
    for reason in REASONS:
        assert value("mass_workers_replaced_total", {"reason": reason}) == 0.0
        metrics.worker_replaced(reason)
        assert value("mass_workers_replaced_total", {"reason": reason}) == 1.0
    assert value("mass_key_requests_total", {"key": "none"}) == 0.0
    for name in (None, "cameras", "cameras"):
        metrics.key_used(name)
    assert value("mass_key_requests_total", {"key": "none"}) == 1.0
    assert value("mass_key_requests_total", {"key": "cameras"}) == 2.0
    metrics.wrong_key()
    assert value("mass_wrong_keys_total") == 1.0
