"""The end of tracing: told once, bounded, on a thread that was there before."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from mass_serve.server.operation import tracing
from mass_serve.server.operation.tracing import LastSpans


def test_the_last_spans_are_sent_when_told_and_not_before() -> None:
    sent = threading.Event()
    last = LastSpans(sent.set)
    time.sleep(0.05)
    assert not sent.is_set()
    asyncio.run(last.send())
    assert sent.is_set()


def test_a_collector_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "LAST_SPANS_SECONDS", 0.1)
    gate = threading.Event()
    last = LastSpans(lambda: print(gate.wait(20), end=""))
    begun = time.monotonic()
    asyncio.run(last.send())
    assert time.monotonic() - begun < 10
    gate.set()
