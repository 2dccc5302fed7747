"""JSON that means one thing: what is refused, in one clause."""

from __future__ import annotations

import pytest

from mass_serve.model_store.format.strict_json import parse_json


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"1", 1),
        (b'{"a": [1.5, "x", null, true, {"a": {}}], "b": -1e300}', None),
        ('"\u00e9"'.encode(), "\u00e9"),
        (b"[[[[[[[[[[]]]]]]]]]]", None),
    ],
)
def test_json_is_read(text: bytes, value: object) -> None:
    assert value is None or parse_json(text) == value
    parse_json(text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b'{"a": 1, "a": 1}', "the key 'a' is there twice"),
        (b'[{"x": {"b": 1, "c": 2, "b": 3}}]', "the key 'b' is there twice"),
        (b'{"a": 1, "\\u0061": 1}', "the key 'a' is there twice"),
        (b"NaN", "NaN is not a finite number"),
        (b'{"a": [Infinity]}', "Infinity is not a finite number"),
        (b"-Infinity", "-Infinity is not a finite number"),
        (b"1e999", "1e999 is not a finite number"),
        (b"-1e999", "-1e999 is not a finite number"),
        (b'"\xff"', "byte 1 is not UTF-8"),
        (b"\xef\xbb\xbf1", "BOM"),
        (b"[" * 1_000_000, "its values are nested too deeply"),
        (b'{"a":' * 1_000_000, "its values are nested too deeply"),
        (b"1" * 10_000, "integer"),
        (b"", "Expecting value"),
        (b"{} {}", "Extra data"),
    ],
)
def test_everything_else_is_refused(text: bytes, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        parse_json(text)
    assert "\n" not in str(caught.value)
