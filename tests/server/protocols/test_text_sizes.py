"""Texts take places in the queue and in batches by their tokens, and are told what they take too many of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.protocols.test_native import refused
from tests.server.protocols.test_texts import post, told
from tests.server_processes import RunningServer, serving

LONGEST = "w10 " * 100  # 80 tokens of it are read


@pytest.fixture(scope="module")
def narrow(text_store: Path) -> Iterator[RunningServer]:
    """A server of 1000 tokens that may wait, 400 of them in a batch."""
    with serving(text_store, queue_tokens=1000, max_batch_tokens=400, max_images_per_request=16) as running:
        running.wait_until_ready()
        yield running


def test_the_queue_is_told_in_tokens(narrow: RunningServer) -> None:
    assert narrow.metric("mass_queue_capacity") == 1000
    assert narrow.metric("mass_queue_depth") == 0


def test_texts_that_the_queue_never_has_room_for_are_too_large(narrow: RunningServer) -> None:
    """By the tokens that they may have, for each task that answers, before any of them is read."""
    before = narrow.metric("mass_batch_tokens_sum")
    assert len(told(post(narrow, texts=[LONGEST] * 12))) == 12
    assert narrow.metric("mass_batch_tokens_sum") == before + 12 * 80
    refused(post(narrow, texts=[LONGEST] * 13), 413, "1040 tokens", "1000 (queue_tokens)")
    refused(post(narrow, texts=[LONGEST] * 5, answer="each"), 413, "1200 tokens")
    assert len(told(post(narrow, texts=["w10"] * 16))) == 16


def test_texts_of_the_same_task_fit_one_batch(narrow: RunningServer) -> None:
    assert len(told(post(narrow, texts=[LONGEST] * 5, same_task=True))) == 5
    refused(post(narrow, texts=[LONGEST] * 6, same_task=True), 400, "400 (max_batch_tokens), not 480")
    assert len(told(post(narrow, texts=["w10"] * 16, same_task=True))) == 16


def test_a_text_has_the_same_bits_in_any_batch(narrow: RunningServer) -> None:
    """Whatever its company, and however many batches a request is cut into."""
    texts = [f"w10 w11 {'w12 ' * length}" for length in (0, 70, 3, 20, 90, 1, 50, 7, 33, 64)]
    together = told(post(narrow, texts=texts))
    assert [told(post(narrow, texts=[text]))[0] for text in texts] == together
    assert told(post(narrow, texts=texts[::-1]))[::-1] == together
