"""What a client is asked with, and what it says of what nobody can be asked with."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from mass_serve.client import AsyncClient, Client, RefusedError
from mass_serve.client.exchanges import Question
from tests.client.test_images import url
from tests.pictures import picture
from tests.server_processes import RunningServer


@pytest.mark.parametrize("client", [Client, AsyncClient])
@pytest.mark.parametrize("key", ["schlüssel", "a-key\n", "a\0key"])
def test_a_key_that_no_header_holds_is_told_and_not_shown(client: Any, key: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII") as told:
        client(key=key)
    assert key.strip() not in str(told.value)


@pytest.mark.parametrize(
    "nothing", [np.zeros((0, 5, 3), np.uint8), np.zeros((5, 0), np.uint8), Image.new("RGB", (0, 5))]
)
def test_a_picture_without_pixels_is_told(server: RunningServer, nothing: Any) -> None:
    with Client(url(server)) as client, pytest.raises(TypeError, match="must have"):
        client.classify(nothing)


def test_one_task_may_be_named_alone(server: RunningServer) -> None:
    """Its letters are no tasks."""
    with Client(url(server)) as client:
        assert client.classify(picture(3), tasks="signs").task == "signs"
        assert [one.task for one in client.classify_each(picture(3), tasks="signs")] == ["signs"]

    async def asked() -> str:
        async with AsyncClient(url(server)) as client:
            return (await client.classify(picture(3), tasks="signs")).task

    assert asyncio.run(asked()) == "signs"


def test_the_mode_of_the_search_is_asked_for(server: RunningServer) -> None:
    with Client(url(server)) as client:
        first, *_, last = client.tasks().modes
        assert first != last
        assert client.classify(picture(3), mode=last).label == "3"
        with pytest.raises(RefusedError, match="mode"):
            client.classify(picture(3), mode="slowest")


def test_a_list_of_nothing_gives_a_list_of_nothing(server: RunningServer) -> None:
    with Client(url(server)) as client:
        assert client.classify([]) == []
        assert client.classify_each([]) == []


def test_the_key_and_the_address_are_those_that_were_given() -> None:
    def answered(request: httpx.Request) -> httpx.Response:
        assert str(request.url) == "http://server/below/v1/tasks"
        assert request.headers["X-API-Key"] == "a-key"
        return httpx.Response(200, json={"store_revision": "1", "reads": "images", "tasks": []})

    http = httpx.Client(transport=httpx.MockTransport(answered))
    with Client("http://server/below/", key="a-key", http=http) as client:
        assert client.tasks().store_revision == "1"


def test_priors_may_be_of_numpy() -> None:
    asked = Question(priors={"cars": np.float64(0.25)}).query
    assert asked == {"priors": "cars:0.25"}
