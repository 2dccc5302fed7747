"""Messages taken apart before they are parsed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mass_serve.server.errors import BadRequestError
from mass_serve.server.rpc.open_inference_pb2 import ModelInferRequest
from mass_serve.server.rpc.wire import MOST_FIELDS, split

raw_tensors = st.lists(st.binary(max_size=300), max_size=4)


@given(model=st.text(max_size=200), timeout=st.integers(0, 1 << 62), raw=raw_tensors)
def test_the_parts_make_up_the_message(model: str, timeout: int, raw: list[bytes]) -> None:
    message = ModelInferRequest(model_name=model, raw_input_contents=raw, inputs=[{"shape": [timeout]}])
    message.parameters["timeout"].uint64_param = timeout
    parts = split(message.SerializeToString())
    assert [bytes(tensor) for tensor in parts.raw_tensors] == raw
    del message.raw_input_contents[:]
    assert ModelInferRequest.FromString(parts.rest) == message


def test_fields_of_a_newer_schema_are_passed_over() -> None:
    """One of each type: a number, eight bytes, four bytes, and a string, under numbers that are free."""
    newer = bytes([0x78, 0x96, 0x01, 0x79, *range(8), 0x7D, *range(4), 0x7A, 2, 1, 2])
    message = ModelInferRequest(model_name="auto", raw_input_contents=[b"data"]).SerializeToString()
    parts = split(newer + message)
    assert [bytes(tensor) for tensor in parts.raw_tensors] == [b"data"]
    assert parts.rest == newer + ModelInferRequest(model_name="auto").SerializeToString()


@given(data=st.binary(max_size=200))
def test_any_bytes_are_split_or_refused(data: bytes) -> None:
    try:
        parts = split(data)
    except BadRequestError:
        return
    assert len(parts.rest) + sum(len(tensor) for tensor in parts.raw_tensors) <= len(data)


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"\x3a\xff\xff\xff\x7fcut off", id="a length beyond the end"),
        pytest.param(b"\x3a", id="no length"),
        pytest.param(b"\xff" * 11, id="a number that does not end"),
        pytest.param(b"\x3b", id="a group"),
        pytest.param(b"\x3d\x00", id="four bytes cut off"),
    ],
)
def test_what_is_no_message_is_refused(message: bytes) -> None:
    with pytest.raises(BadRequestError, match="no ModelInferRequest"):
        split(message)


def test_the_number_of_fields_is_bounded() -> None:
    """Millions of empty ones would take the event loop seconds."""
    empty = b"\x3a\x00"
    assert len(split(empty * MOST_FIELDS).raw_tensors) == MOST_FIELDS
    with pytest.raises(BadRequestError, match="more than 1000 fields"):
        split(empty * (MOST_FIELDS + 1))
