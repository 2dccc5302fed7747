"""Forms, cut into their parts, at both sides of each bound."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from mass_serve.server.errors import BadRequestError, TooLargeError
from mass_serve.server.protocols.native.multipart_forms import Part, parse_multipart

DISPOSITION = b'Content-Disposition: form-data; name="images"'


def form(*heads: bytes, boundary: bytes = b"x") -> bytes:
    """A form of parts with these headers; the data of each is its number."""
    parts = (b"--" + boundary + b"\r\n" + head + b"\r\n\r\n%d\r\n" % n for n, head in enumerate(heads))
    return b"".join(parts) + b"--" + boundary + b"--\r\n"


def names(body: bytes) -> list[str]:
    return [part.name for part in parse_multipart(body, 10)]


def test_parts_have_their_names_and_data() -> None:
    other = b'content-disposition:form-data;name=tasks;filename="a.png"'
    assert parse_multipart(form(DISPOSITION, other), 2) == [Part("images", b"0"), Part("tasks", b"1")]


def test_other_headers_may_stand_before_and_after() -> None:
    head = b'A-More: x; name="a"\r\nX-More: x; name="x"\r\n' + DISPOSITION + b'\r\nA-More: x; name="a"'
    assert names(form(head)) == ["images"]


def test_a_part_stays_as_it_was_sent() -> None:
    [part] = parse_multipart(form(DISPOSITION), 1)
    with pytest.raises(FrozenInstanceError):
        part.name = "other"  # type: ignore[misc]


def test_a_name_may_be_any_text() -> None:
    assert names(form('Content-Disposition: form-data; name="bilder-ä"'.encode())) == ["bilder-ä"]
    assert names(form(b'Content-Disposition: form-data; name="\xff"')) == ["\ufffd"]


@pytest.mark.parametrize(
    "head", [b"", b"Content-Type: image/png", b"Content-Disposition: form-data", b"name: images"]
)
def test_a_part_without_a_name_is_refused(head: bytes) -> None:
    with pytest.raises(BadRequestError, match="has no name"):
        parse_multipart(form(head), 10)


def test_the_second_disposition_counts_where_the_first_has_no_name() -> None:
    assert names(form(b"Content-Disposition: form-data\r\n" + DISPOSITION)) == ["images"]


def test_as_many_parts_as_may_be_are_read_and_one_more_is_refused() -> None:
    assert len(parse_multipart(form(*[DISPOSITION] * 3), 3)) == 3
    with pytest.raises(TooLargeError, match="more than 3 parts"):
        parse_multipart(form(*[DISPOSITION] * 4), 3)


@pytest.mark.parametrize(
    "body", [b"", b"--", b"--\r\n", b"-- \t\r\n", b"--x", b"x\r\n", b"-x\r\n--x--", b"\r\n--x\r\n"]
)
def test_a_body_begins_with_its_boundary(body: bytes) -> None:
    with pytest.raises(BadRequestError, match="does not start with its boundary"):
        parse_multipart(body, 10)


def test_a_boundary_has_a_line_that_can_be_read() -> None:
    assert names(form(DISPOSITION, boundary=b"x" * 252)) == ["images"]
    with pytest.raises(BadRequestError, match="does not start with its boundary"):
        parse_multipart(form(DISPOSITION, boundary=b"x" * 253), 10)


def test_a_header_has_a_length_that_can_be_read() -> None:
    padding = b"A: " + b"b" * (8192 - len(b"A: "))
    assert names(form(DISPOSITION + b"\r\n" + padding)) == ["images"]
    with pytest.raises(BadRequestError, match="8192 bytes"):
        parse_multipart(form(DISPOSITION + b"\r\n" + padding + b"b"), 10)


def test_a_part_has_headers_that_can_be_counted() -> None:
    others = b"A: b\r\n" * 15
    assert names(form(others + DISPOSITION)) == ["images"]
    with pytest.raises(BadRequestError, match="at most 16 headers"):
        parse_multipart(form(others + DISPOSITION + b"\r\nA: b"), 10)


@pytest.mark.parametrize("head", [b"name=images", b": b", b"A: b\rC: d", b"A b: c"])
def test_headers_that_are_none_are_refused(head: bytes) -> None:
    with pytest.raises(BadRequestError, match="malformed"):
        parse_multipart(form(DISPOSITION + b"\r\n" + head), 10)


def test_blanks_may_follow_a_boundary_and_nothing_else() -> None:
    body = form(DISPOSITION, DISPOSITION)
    assert names(body.replace(b"--x\r\n", b"--x \t\r\n")) == ["images", "images"]
    with pytest.raises(BadRequestError, match="malformed"):
        parse_multipart(body.replace(b"0\r\n--x\r\n", b"0\r\n--x \ty\r\n"), 10)


def test_a_line_that_goes_on_behind_the_boundary_is_data() -> None:
    data = b"0\r\n--xy"
    assert parse_multipart(form(DISPOSITION).replace(b"0", data), 10) == [Part("images", data)]


def test_a_form_that_is_cut_off_is_refused() -> None:
    with pytest.raises(BadRequestError, match="cut off"):
        parse_multipart(form(DISPOSITION)[: -len(b"\r\n--x--\r\n")], 10)
