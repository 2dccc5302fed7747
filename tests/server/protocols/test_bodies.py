"""What a body is, by its bytes, and how much of it is read, at both sides of each bound."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from mass_serve.server.errors import BadRequestError, TooLargeError
from mass_serve.server.protocols import bodies
from mass_serve.server.protocols.bodies import (
    MOST_JSON_HERE,
    MOST_LISTS,
    MOST_OPTIONS,
    decoded_base64,
    is_form,
    is_image_like,
    is_json,
    is_large_json,
    parse_json,
)
from tests.pictures import picture

UMLAUT = "ä".encode()


class Wish(BaseModel):
    """Something that a body may hold."""

    numbers: list[int] = []
    lists: object = None


def body_of(values: int) -> bytes:
    return b'{"numbers":[' + b",".join([b"1"] * values) + b"]}"


def test_json_is_read_as_the_model_that_is_asked_for() -> None:
    assert parse_json(Wish, body_of(3), most_values=10) == Wish(numbers=[1, 1, 1])


@pytest.mark.parametrize("values", [1, 4])
def test_as_many_values_as_may_be_are_read(values: int) -> None:
    assert len(parse_json(Wish, body_of(values), most_values=3).numbers) == values


def test_one_value_more_is_refused_with_the_number_that_may_be() -> None:
    with pytest.raises(TooLargeError, match="more than 3 values"):
        parse_json(Wish, body_of(5), most_values=3)


def lists(inner: str, count: int) -> bytes:
    """Lists or objects in a list, beside each other; with the two around them there are `count`."""
    return f'{{"lists":[{",".join([inner] * (count - 2))}]}}'.encode()


@pytest.mark.parametrize("inner", ["[]", "{}"])
def test_lists_and_objects_are_counted_beside_commas(monkeypatch: pytest.MonkeyPatch, inner: str) -> None:
    """A deep list has none: it would cost as much without being counted."""
    monkeypatch.setattr(bodies, "MOST_LISTS", 10)
    assert parse_json(Wish, lists(inner, 10), most_values=1000).lists
    with pytest.raises(TooLargeError, match="more than 10 values"):
        parse_json(Wish, lists(inner, 11), most_values=1000)


def test_options_are_few_and_lists_a_million() -> None:
    assert (MOST_OPTIONS, MOST_LISTS) == (10_000, 1_000_000)


def test_what_is_wrong_is_told_with_its_place_and_without_the_callers_words() -> None:
    with pytest.raises(BadRequestError, match=r"numbers\[1\]") as caught:
        parse_json(Wish, b'{"numbers":[1,"my secret"]}', most_values=10)
    assert "my secret" not in str(caught.value)
    assert "https://" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (b'{"images": []}', "", True),
        (b'\r\n \t{"images": []}', "image/png", True),
        (b" " * 63 + b"{", "", True),
        (b" " * 64 + b"{", "", False),  # so far, and no further, is looked for it
        (b"no json", "application/json", True),  # so that its caller hears of JSON
        (b"no json", "Application/JSON; charset=utf-8", True),
        (b"no json", "text/plain", False),
        (b"", "", False),
        (picture(1), "application/json", False),  # clients that name everything JSON
        (picture(1), "image/png", False),
    ],
)
def test_json_and_images_are_told_apart(body: bytes, content_type: str, expected: bool) -> None:
    assert is_json(body, content_type) is expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", False),
        (b"text", False),
        (b"text\0", True),
        (UMLAUT * 1000, False),
        (b"\x89PNG\r\n", True),
        (b"GIF89a\x01\0\x01\0", True),
        (b"x" * 511 + UMLAUT, False),  # a character that the looked-at part cuts in two
        (b"x" * 510 + "€".encode(), False),
        (b"x" * 509 + "😀".encode(), False),
        (b"x" * 508 + b"\xff" * 10, True),  # no such character is four bytes long
        (b"x" * 509 + b"\xff" * 10, False),  # one could be: it is not known yet
        (b"x" * 511 + b"\0", True),
        (b"x" * 512 + b"\0", False),  # an image says so before
    ],
)
def test_an_image_is_known_by_bytes_that_no_text_has(body: bytes, expected: bool) -> None:
    assert is_image_like(body) is expected


def test_base64_is_decoded() -> None:
    assert decoded_base64("AAEC", "images[0].b64") == b"\0\1\2"
    assert decoded_base64("", "images[0].b64") == b""
    assert decoded_base64("data:image/png;base64,AAEC", "images[0].b64") == b"\0\1\2"
    assert decoded_base64("DATA:image/svg+xml;charset=utf-8;base64,AAEC", "images[0].b64") == b"\0\1\2"


@pytest.mark.parametrize(
    "text", ["AAE", "AA EC", "AA\nEC", "data:image/png,AAEC", "data:,data:;base64,AAEC", "AA-_", "äöü="]
)
def test_what_is_not_base64_is_told_with_its_place(text: str) -> None:
    with pytest.raises(BadRequestError, match=r"^images\[0\]\.b64 is not base64; send it padded"):
        decoded_base64(text, "images[0].b64")


FORM = b'--cut\r\nContent-Disposition: form-data; name="images"\r\n\r\n'
FORM_TYPE = "Multipart/form-data; boundary=cut"


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (FORM, "", True),
        (b"\r\n" + FORM, "image/png", True),  # what it starts with counts before what it is called
        (b"a preamble\r\n" + FORM, FORM_TYPE, True),
        (b"a preamble\r\n" + FORM, "", False),
        (picture(1), FORM_TYPE, False),
        (picture(1), "image/png", False),
        (b"{}", "application/json", False),
        (b"-", "", False),
        (b" " * 62 + b"--", "", True),
        (b" " * 63 + b"--", "", False),
        (b" " * 64 + b"--", "", False),
    ],
)
def test_a_form_is_told_by_its_beginning_or_by_its_name(
    body: bytes, content_type: str, expected: bool
) -> None:
    assert is_form(body, content_type) is expected


@pytest.mark.parametrize(
    ("size", "start", "content_type", "expected"),
    [
        (1 << 20, b"{", "application/json", False),
        ((1 << 20) + 1, b"{", "application/json", True),
        (1 << 21, b"{", "", True),
        (1 << 21, b"[", "application/json", True),
        (1 << 21, b"[", "text/plain", False),
        (1 << 21, b"--", "application/json", False),  # forms are taken apart as forms
        (1 << 10, b"[", "text/plain", False),
    ],
)
def test_large_json_is_parsed_elsewhere(size: int, start: bytes, content_type: str, expected: bool) -> None:
    assert MOST_JSON_HERE == 1 << 20
    assert is_large_json(start.ljust(size, b"1"), content_type) is expected
