"""Which bodies are read on the event loop: those that cannot hold it up."""

from __future__ import annotations

import pytest

from mass_serve.server.protocols import reading
from mass_serve.server.protocols.reading import FLAT_JSON_BYTES_AT_ONCE, JSON_BYTES_AT_ONCE

IMAGE = b'{"images":[{"b64":"%s"}]}'
MANY = b'{"images":[%s{"b64":"AAAA"}]}'


@pytest.mark.parametrize(
    ("body", "at_once"),
    [
        (MANY % b"{},", True),  # little
        (IMAGE % (b"A" * JSON_BYTES_AT_ONCE), True),  # one long string
        (IMAGE % (b"A" * FLAT_JSON_BYTES_AT_ONCE), False),
        (MANY % (b"{}," * JSON_BYTES_AT_ONCE), False),
        (MANY % (b"[" * JSON_BYTES_AT_ONCE), False),
        (MANY % (b"1," * JSON_BYTES_AT_ONCE), False),
    ],
    ids=["little", "flat", "flat and long", "objects", "lists", "numbers"],
)
def test_json_is_read_at_once_where_it_is_little_or_flat(body: bytes, at_once: bool) -> None:
    assert reading._is_read_at_once(body, "application/json") is at_once
