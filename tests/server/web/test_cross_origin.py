"""Pages of other origins, as a browser asks for them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, cast

import httpx
import pytest

from mass_serve.server.app import create_app
from mass_serve.server.errors import INTERNAL_ERROR
from mass_serve.server.settings import SettingsError, load_settings
from mass_serve.server.web.cross_origin import METHODS, REQUEST_HEADERS
from tests.pictures import picture
from tests.server_processes import RunningServer, running

ALLOWED = "https://app.example.com"


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    origins = f"{ALLOWED}, http://localhost:5173"
    with running(0.0, {"cors_origins": origins, "allowed_hosts": "localhost, 127.0.0.1"}) as started:
        started.wait_until_ready()
        yield started


def preflight(server: RunningServer, origin: str, method: str, headers: str) -> httpx.Response:
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    return server.client.request("OPTIONS", "/v1/classify", headers={"Origin": origin, **asked})


def test_a_page_of_a_named_origin_may_send_what_the_protocols_need(server: RunningServer) -> None:
    for origin in (ALLOWED, "http://localhost:5173"):
        for method in METHODS:
            answer = preflight(server, origin, method, ",".join(REQUEST_HEADERS).lower())
            assert answer.status_code == 200
            assert answer.headers["Access-Control-Allow-Origin"] == origin
            assert method in answer.headers["Access-Control-Allow-Methods"]
            assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize(
    ("origin", "method", "headers"),
    [
        ("https://evil.example.com", "POST", "content-type"),
        (ALLOWED, "DELETE", "content-type"),
        (ALLOWED, "POST", "x-other"),
        ("null", "POST", "content-type"),
    ],
)
def test_others_are_refused_in_the_words_of_all_errors(
    server: RunningServer, origin: str, method: str, headers: str
) -> None:
    refused = preflight(server, origin, method, headers)
    assert refused.status_code == 400
    assert "cors_origins" in refused.json()["error"]
    assert refused.headers["Content-Type"] == "application/json"


def test_answers_and_errors_can_be_read_by_the_page(server: RunningServer) -> None:
    for content, status in ((picture(7), 200), (b"no image", 415)):
        answer = server.client.post("/v1/classify", content=content, headers={"Origin": ALLOWED})
        assert answer.status_code == status
        assert answer.headers["Access-Control-Allow-Origin"] == ALLOWED
        assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]
    other = server.client.post("/v1/classify", content=picture(7), headers={"Origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in other.headers


def test_the_page_of_a_named_origin_reads_that_it_calls_the_server_by_a_wrong_name(
    server: RunningServer,
) -> None:
    answer = server.client.get("/v1/tasks", headers={"Origin": ALLOWED, "Host": "other.example"})
    assert answer.status_code == 421
    assert answer.headers["Access-Control-Allow-Origin"] == ALLOWED
    assert "allowed_hosts" in answer.json()["error"]
    assert answer.headers["X-Request-Id"]


def test_the_page_reads_that_the_server_failed() -> None:
    app = create_app(load_settings({"cors_origins": ALLOWED}), cast(Any, None))

    @app.get("/fails")
    async def fails() -> None:
        raise RuntimeError("asked to fail")

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get("/fails", headers={"Origin": ALLOWED})

    answer = asyncio.run(ask())
    assert answer.status_code == 500
    assert answer.json() == {"error": INTERNAL_ERROR}
    assert answer.headers["Access-Control-Allow-Origin"] == ALLOWED
    assert answer.headers["X-Request-Id"]


def test_nobody_may_by_default(closed_server: RunningServer) -> None:
    answer = closed_server.client.get("/v1/tasks", headers={"Origin": ALLOWED})
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert preflight(closed_server, ALLOWED, "POST", "content-type").status_code == 405


@pytest.fixture
def closed_server() -> Iterator[RunningServer]:
    with running(0.0, {}) as started:
        started.wait_until_ready()
        yield started


@pytest.mark.parametrize("wrong", ["app.example.com", "https://a.example/path", "https://*.example", "a,,b"])
def test_what_is_no_origin_is_told(wrong: str) -> None:
    with pytest.raises(SettingsError, match="cors_origins"):
        load_settings({"cors_origins": wrong})
