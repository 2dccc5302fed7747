"""A server that is busy is asked again when it says, and only then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx
import pytest

from mass_serve.client import AsyncClient, BusyError, Client, FailedError, RefusedError, UnreachableError

SERVED = {"store_revision": "1", "reads": "images", "tasks": []}


class Busy:
    """A transport that refuses so many requests with a status, and then answers."""

    def __init__(
        self, times: int, status: int = 429, after: str | None = "0", of_proxy: bool = False
    ) -> None:
        self.left, self.status, self.after, self.asked = times, status, after, 0
        self.of_proxy = of_proxy

    def __call__(self, request: httpx.Request) -> httpx.Response:  # noqa: ARG002 - the same for all
        self.asked += 1
        if self.left == 0:
            return httpx.Response(200, json=SERVED)
        self.left -= 1
        if self.of_proxy:
            return httpx.Response(self.status, text="Internal Server Error")
        headers = {} if self.after is None else {"Retry-After": self.after}
        return httpx.Response(self.status, json={"error": "Come later."}, headers=headers)


def asked_blocking(busy: Busy, tries: int, patience: float) -> object:
    http = httpx.Client(transport=httpx.MockTransport(busy))
    with Client("http://server", http=http, tries=tries, patience=patience) as client:
        return client.tasks()


def asked_awaiting(busy: Busy, tries: int, patience: float) -> object:
    async def asked() -> object:
        http = httpx.AsyncClient(transport=httpx.MockTransport(busy))
        async with AsyncClient("http://server", http=http, tries=tries, patience=patience) as client:
            return await client.tasks()

    return asyncio.run(asked())


Ask = Callable[[Busy, int, float], object]
both = pytest.mark.parametrize("ask", [asked_blocking, asked_awaiting])


@both
@pytest.mark.parametrize("status", [429, 503])
def test_it_is_asked_again(ask: Ask, status: int) -> None:
    busy = Busy(3, status)
    assert ask(busy, 5, 60)
    assert busy.asked == 4


@both
def test_tries_end(ask: Ask) -> None:
    busy = Busy(9)
    with pytest.raises(BusyError, match="Come later"):
        ask(busy, 3, 60)
    assert busy.asked == 3


@both
@pytest.mark.parametrize("after", ["61", None, "soon", "-1", "nan"])
def test_it_is_not_asked_too_late_nor_without_being_told_when(ask: Ask, after: str | None) -> None:
    busy = Busy(1, after=after)
    with pytest.raises(BusyError):
        ask(busy, 5, 60)
    assert busy.asked == 1


@both
def test_waits_count_together(ask: Ask) -> None:
    busy = Busy(9, after="0.01")
    with pytest.raises(BusyError):
        ask(busy, 99, 0.025)
    assert busy.asked == 3


@both
@pytest.mark.parametrize(("status", "kind"), [(400, RefusedError), (404, RefusedError), (500, FailedError)])
def test_what_would_be_refused_again_is_not_asked_again(ask: Ask, status: int, kind: type[Exception]) -> None:
    busy = Busy(9, status)
    with pytest.raises(kind, match="Come later"):
        ask(busy, 5, 60)
    assert busy.asked == 1


@both
@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_another_is_asked_where_a_proxy_lost_its_server(ask: Ask, status: int) -> None:
    lost = Busy(2, status, of_proxy=True)
    assert ask(lost, 5, 60)
    assert lost.asked == 3


@pytest.mark.parametrize("status", [200, 500, 502, 503])
def test_what_is_no_server_of_ours_is_told(status: int) -> None:
    http = httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(status, text="<html>")))
    with (
        Client("http://server", http=http, tries=1) as client,
        pytest.raises((FailedError, BusyError), match=f"{status}, and"),
    ):
        client.tasks()


def test_a_response_that_cannot_be_read_is_none() -> None:
    def garbled(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"Content-Encoding": "gzip"}, content=iter([b"no gzip"]))

    http = httpx.Client(transport=httpx.MockTransport(garbled))
    with Client("http://server", http=http) as client, pytest.raises(UnreachableError):
        client.tasks()
