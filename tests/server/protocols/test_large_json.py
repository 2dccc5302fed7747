"""JSON with large files in base64, which a worker process parses: it is answered as small JSON is."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest

from mass_serve.server.errors import BadRequestError, TooLargeError
from mass_serve.server.protocols.bodies import MOST_JSON_HERE, is_large_json
from mass_serve.server.protocols.framed import framed_files, unframed_files
from mass_serve.server.protocols.hugging_face.image_requests import frame_of_json, image_of_frame, read_image
from mass_serve.server.protocols.limits import Limits
from mass_serve.server.protocols.native.classify_requests import (
    Options,
    files_of_json,
    parse_request,
    request_of_files,
)
from tests.pictures import picture
from tests.server_processes import running

LIMITS = Limits(max_images=4, max_top_k=10)
# A decoder does not mind what comes behind a picture.
LARGE = base64.b64encode(picture(7) + bytes(MOST_JSON_HERE)).decode()
SMALL = base64.b64encode(picture(8)).decode()


def body(content: Any) -> bytes:
    return json.dumps(content).encode()


@pytest.mark.parametrize("files", [[], [b""], [b"a", b"", b"\0\xff" * 1000]])
def test_files_and_options_come_back(files: list[bytes]) -> None:
    options = {"top_k": 3, "tasks": ["ä", 'b"']}
    assert unframed_files(bytearray(framed_files(options, files))) == (options, files)


def test_json_is_large_from_a_size_on_and_other_bodies_never_are() -> None:
    assert is_large_json(b"{" + b" " * MOST_JSON_HERE, "")
    assert not is_large_json(b"{" + b" " * (MOST_JSON_HERE - 1), "")
    assert not is_large_json(picture(1) + bytes(MOST_JSON_HERE), "application/json")


@pytest.mark.parametrize("content_type", ["multipart/form-data; boundary=json", "application/json"])
def test_a_form_is_a_form_however_large_it_is(content_type: str) -> None:
    assert not is_large_json(b"--json\r\n" + b" " * MOST_JSON_HERE, content_type)


def test_a_frame_takes_no_more_than_the_text_did() -> None:
    """Escapes would take three times as much, and the result would be refused as too large."""
    sent = json.dumps({"images": [{"b64": SMALL}], "tasks": ["é" * 600_000]}, ensure_ascii=False).encode()
    frame = files_of_json(memoryview(sent), b"20000")
    assert len(frame) < len(sent) + 100
    assert request_of_files(bytearray(frame), Options(), LIMITS).tasks == ["é" * 600_000]


@pytest.mark.parametrize(
    "options",
    [{}, {"top_k": 2}, {"tasks": ["signs"], "top_k": 1}, {"answer": "best"}, {"same_task": False}],
)
@pytest.mark.parametrize("query", [Options(), Options(["digits"], 9, "each"), Options(same_task=True)])
def test_the_native_request_is_the_same(options: dict[str, Any], query: Options) -> None:
    sent = body({"images": [{"b64": LARGE}, {"b64": SMALL}], **options})
    outside = request_of_files(bytearray(files_of_json(memoryview(sent), b"20000")), query, LIMITS)
    assert outside == parse_request(sent, "application/json", query, LIMITS)


@pytest.mark.parametrize("parameters", [{}, {"parameters": {"top_k": 2, "function_to_apply": "none"}}])
def test_the_hugging_face_request_is_the_same(parameters: dict[str, Any]) -> None:
    sent = body({"inputs": LARGE, **parameters})
    assert image_of_frame(bytearray(frame_of_json(memoryview(sent), b""))) == read_image(sent, "")


def test_what_is_wrong_is_said_in_the_same_words() -> None:
    with pytest.raises(BadRequestError, match=r"^images\[1\]\.b64 is not base64"):
        files_of_json(memoryview(body({"images": [{"b64": LARGE}, {"b64": "@"}]})), b"20000")
    many = files_of_json(memoryview(body({"images": [{"b64": LARGE}, *[{"b64": SMALL}] * 4]})), b"20000")
    with pytest.raises(TooLargeError, match="5 images, the limit is 4"):
        request_of_files(bytearray(many), Options(), LIMITS)
    with pytest.raises(BadRequestError, match="inputs is not base64"):
        frame_of_json(memoryview(body({"inputs": LARGE + "@"})), b"")


def test_a_server_answers_large_json_of_either_protocol() -> None:
    with running(0.0, {}) as server:
        server.wait_until_ready()

        def post(path: str, content: Any) -> httpx.Response:
            return server.client.post(path, content=body(content))

        answer = post("/v1/classify", {"images": [{"b64": LARGE}, {"b64": SMALL}], "top_k": 1}).json()
        assert [result["label"] for result in answer["results"]] == ["7", "8"]
        assert post("/predict", {"inputs": LARGE, "parameters": {"top_k": 1}}).json()[0]["label"] == "7"
        bad = LARGE + "@"
        for path, content in (("/v1/classify", {"images": [{"b64": bad}]}), ("/", {"inputs": bad})):
            refused = post(path, content)
            assert refused.status_code == 400
            assert "is not base64" in refused.json()["error"]
        assert server.metric('mass_workers_replaced_total{reason="crash"}') == 0
