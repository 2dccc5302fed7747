"""Bodies that are cheap to send and would be dear to read."""

from __future__ import annotations

import gzip
import time
import zlib
from collections.abc import Callable

import pytest

from mass_serve.server.errors import BadRequestError, MemoryFullError, ServiceError, TooLargeError
from mass_serve.server.protocols.limits import Limits
from mass_serve.server.protocols.native.classify_requests import Options, parse_request
from mass_serve.server.protocols.native.multipart_forms import Part, parse_multipart
from mass_serve.server.protocols.open_inference.infer_requests import decompressed, parse_infer_request

LIMITS = Limits(max_images=8, max_top_k=10)
# Seconds; reading everything took many times that.
SOON = 10.0
MANY = 900_000


def v2(data: bytes) -> bytes:
    return b'{"inputs":[{"name":"image","shape":[1],"datatype":"BYTES","data":[' + data + b"]}]}"


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"images":[' + b"1," * MANY + b"1]}", TooLargeError),
        (b'{"images":[' + b'{"b64":""},' * MANY + b'{"b64":""}]}', TooLargeError),
        (b'{"images":[' + b"1," * 9_000 + b"1]}", BadRequestError),
        (b"{" + b'"unknown":1,' * MANY + b'"images":[]}', TooLargeError),
        (b'{"images":[' + b'{"b64":""},' * 9 + b'{"b64":""}]}', TooLargeError),
    ],
    ids=["wrong items", "images", "fewer wrong items", "unknown keys", "two more than may be"],
)
def test_json_of_many_values(body: bytes, error: type[ServiceError]) -> None:
    started = time.monotonic()
    with pytest.raises(error):
        parse_request(body, "", Options(), LIMITS)
    assert time.monotonic() - started < SOON


@pytest.mark.parametrize(
    ("body", "error", "words"),
    [
        (b'{"inputs":[' + b"1," * MANY + b"1]}", BadRequestError, r"inputs\[0\]"),
        (b'{"inputs":[],"outputs":[' + b"1," * MANY + b"1]}", BadRequestError, r"outputs\[0\]"),
        (v2(b"").replace(b"[1]", b"[" + b"-1," * MANY + b"1]"), BadRequestError, r"shape\[0\]"),
        (v2(b"[]," * MANY + b"[]"), BadRequestError, "must be strings"),
        (v2(b"[" * 150 + b"]" * 150 + b',""' * MANY), BadRequestError, "must be strings"),
        (v2(b'"",' * MANY + b'""'), BadRequestError, "2 elements or more"),
        (v2(b"[]," * 3 * MANY + b"[]"), TooLargeError, "binary form"),
        (v2((b"[" * 150 + b"]" * 150 + b",") * 20_000 + b"1"), TooLargeError, "binary form"),
    ],
    ids=[
        "inputs",
        "outputs",
        "shape",
        "empty lists",
        "a deep list",
        "strings",
        "too many",
        "many deep lists",
    ],
)
def test_open_inference_json_of_many_values(body: bytes, error: type[ServiceError], words: str) -> None:
    started = time.monotonic()
    with pytest.raises(error, match=words):
        parse_infer_request(body, None, LIMITS)
    assert time.monotonic() - started < SOON


def form(name: bytes, data: bytes) -> bytes:
    return b'--x\r\nContent-Disposition: form-data; name="' + name + b'"\r\n\r\n' + data + b"\r\n"


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (form(b"tasks", b"a") * 100_000 + b"--x--", TooLargeError),
        (form(b"tasks", b"a," * MANY) + b"--x--", BadRequestError),
        (form(b"images", b"\r\n-" * 5 * MANY) + b"--x", BadRequestError),
        (form(b"images", b"\r\n--xy" * MANY) + b"--x--", TooLargeError),
        (b"--x\r\n" + b"A: b\r\n" * MANY + b"--x--", BadRequestError),
    ],
    ids=["parts", "names", "almost boundaries", "boundaries in data", "headers"],
)
def test_forms_of_many_parts(body: bytes, error: type[ServiceError]) -> None:
    started = time.monotonic()
    with pytest.raises(error):
        parse_request(body, "", Options(), LIMITS)
    assert time.monotonic() - started < SOON


def test_a_form_is_cut_at_its_boundaries_alone() -> None:
    tricky = b"\r\n--\r\n-x\r\n\r\n--X"
    body = form(b"a", tricky) + form(b"b", b"") + b"--x--\r\nwhat follows is not read"
    assert parse_multipart(body, 2) == [Part("a", tricky), Part("b", b"")]
    with pytest.raises(TooLargeError, match="more than 1 parts"):
        parse_multipart(body, 1)


def test_a_form_with_padding_behind_its_boundaries() -> None:
    body = form(b"a", b"1").replace(b"--x\r\n", b"--x  \r\n") + form(b"b", b"2").replace(b"--x", b"--x \t")
    assert [part.name for part in parse_multipart(body + b"--x--", 2)] == ["a", "b"]


@pytest.mark.parametrize("packed", [gzip.compress, zlib.compress])
@pytest.mark.parametrize("content", [b"", b"x", b"xy" * 1000, b"\0" * 5_000_000, bytes(range(256)) * 4000])
def test_what_unpacks_is_counted_before_it_is_kept(packed: Callable[[bytes], bytes], content: bytes) -> None:
    pieces: list[int] = []
    assert decompressed(packed(content) * 2, "gzip", 20_000_000, pieces.append) == content * 2
    assert sum(pieces) == 2 * len(content)
    assert max(pieces) <= 1 << 16


def test_unpacking_ends_where_the_memory_does() -> None:
    """A bomb of kilobytes takes no more than what it was refused at."""
    held: list[int] = []

    def hold(nbytes: int) -> None:
        if sum(held) + nbytes > 200_000:
            raise MemoryFullError("full")
        held.append(nbytes)

    with pytest.raises(MemoryFullError):
        decompressed(gzip.compress(bytes(30_000_000)), "gzip", 1 << 30, hold)
    assert sum(held) <= 200_000


def test_what_unpacks_to_more_than_a_body_may_be_is_refused() -> None:
    packed = gzip.compress(bytes(100_000))
    assert len(decompressed(packed, "gzip", 100_000, lambda _: None)) == 100_000
    with pytest.raises(TooLargeError, match="99999 bytes"):
        decompressed(packed, "gzip", 99_999, lambda _: None)


@pytest.mark.parametrize("cut", [1, 8, 9, 100])
def test_a_body_that_is_cut_off(cut: int) -> None:
    with pytest.raises(BadRequestError, match="cut off"):
        decompressed(gzip.compress(bytes(300_000))[:-cut], "gzip", 1 << 30, lambda _: None)
