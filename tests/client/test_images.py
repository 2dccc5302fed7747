"""The clients against a real server of images: every kind of input, questions, errors."""

from __future__ import annotations

import asyncio
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from mass_serve.client import (
    Answer,
    AsyncClient,
    Client,
    RefusedError,
    UnauthorizedError,
    UnreachableError,
)
from tests.pictures import picture
from tests.server_processes import RunningServer, running


def url(server: RunningServer) -> str:
    return f"http://127.0.0.1:{server.port}"


@pytest.fixture
def client(server: RunningServer) -> Any:
    with Client(url(server)) as client:
        yield client


def pixels(number: int) -> Image.Image:
    return Image.open(BytesIO(picture(number))).convert("RGB")


@pytest.mark.parametrize("kind", ["str", "path", "bytes", "file", "picture", "CMYK", "I", "array"])
def test_an_image_of_every_kind(client: Client, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(picture(3))
    image: Any = {
        "str": str(path),
        "path": path,
        "bytes": picture(3),
        "file": BytesIO(picture(3)),
        "picture": pixels(3),
        "CMYK": pixels(3).convert("CMYK"),
        "I": Image.fromarray(np.asarray(pixels(3).getchannel("R"), np.int32) * 257),
        "array": np.asarray(pixels(3)),
    }[kind]
    answer = client.classify(image)
    assert isinstance(answer, Answer)
    assert answer.label == "3"


def test_a_list_gives_a_list_however_long(client: Client, server: RunningServer) -> None:
    """The server takes eight at once."""
    numbers = [number % 10 for number in range(19)]
    with Client(url(server), batch_size=8) as client:
        answers = client.classify([picture(number) for number in numbers], top_k=2)
    assert [answer.label for answer in answers] == [str(number) for number in numbers]
    assert all(len(answer.top) == 2 for answer in answers)
    assert client.classify([]) == []


def test_an_answer_says_all_that_the_server_says(client: Client, server: RunningServer) -> None:
    (said,) = server.client.post("/v1/classify", content=picture(4)).json()["results"]
    answer = client.classify(picture(4))
    assert (answer.task, answer.task_revision, answer.score) == (
        said["task"],
        said["task_revision"],
        said["score"],
    )
    assert [(one.label, one.score) for one in answer.top] == [
        (one["label"], one["score"]) for one in said["top"]
    ]
    assert dict(answer.routing.coefficients) == said["routing"]["coefficients"]
    assert answer.routing.familiarity == said["routing"]["familiarity"]
    assert [other.task for other in answer.alternatives] == [other["task"] for other in said["alternatives"]]


def test_named_tasks_alone_answer(client: Client) -> None:
    assert client.classify(picture(3), tasks=["signs"]).task == "signs"


def test_every_task_answers(client: Client) -> None:
    names = [task.name for task in client.tasks().tasks]
    of_each = client.classify_each([picture(3), picture(4), picture(5)])
    assert [[answer.task for answer in answers] for answers in of_each] == [names] * 3
    assert [answers[0].label for answers in of_each if isinstance(answers[0], Answer)] == ["3", "4", "5"]
    assert [answer.task for answer in client.classify_each(picture(3), tasks=["signs"])] == ["signs"]


def test_images_of_one_task_are_asked_together(server: RunningServer) -> None:
    """Also where a request would have fewer answers: it is the task of all."""
    with Client(url(server), batch_size=1) as client:
        before = server.metric('mass_questions_total{answer="same_task"}')
        answers = client.classify([picture(3), picture(4)], same_task=True)
    assert len({answer.task for answer in answers}) == 1
    assert server.metric('mass_questions_total{answer="same_task"}') == before + 1


def test_it_works_asynchronously(server: RunningServer) -> None:
    async def asked() -> list[Answer]:
        async with AsyncClient(url(server)) as client:
            one = await client.classify(pixels(3))
            many = await client.classify([picture(4), picture(5)])
            each = await client.classify_each(picture(6), tasks=["digits"])
            assert [task.name for task in (await client.tasks()).tasks]
            with pytest.raises(RefusedError, match="cats"):
                await client.classify(picture(3), tasks=["cats"])
            return [one, *many, *(answer for answer in each if isinstance(answer, Answer))]

    assert [answer.label for answer in asyncio.run(asked())] == ["3", "4", "5", "6"]


def test_what_the_server_refuses_is_told_in_its_words(client: Client, server: RunningServer) -> None:
    with pytest.raises(RefusedError) as refused:
        client.classify(b"no image")
    response = server.client.post("/v1/classify", files={"images": b"no image"})
    assert str(refused.value) == response.json()["error"]
    assert refused.value.status == 415
    assert refused.value.request_id


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (3, "not int"),
        (np.zeros((4, 4, 3)), "must be uint8"),
        (np.zeros((4, 4, 7), np.uint8), r"not \[4, 4, 7\]"),
        (None, "not NoneType"),
        ((Path("a.png"), Path("b.png")), "not tuple"),
    ],
)
def test_what_is_no_image_is_not_sent(client: Client, image: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        client.classify(image)


def test_a_file_that_is_not_there_is_told(client: Client) -> None:
    with pytest.raises(FileNotFoundError):
        client.classify("nowhere.png")


def test_a_key_is_sent(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("secret\n")
    with running(0, {"inference_keys_file": keys}) as server:
        server.wait_until_ready()
        with Client(url(server), key="secret") as client:
            assert client.classify(picture(3)).label == "3"
        with Client(url(server)) as client, pytest.raises(UnauthorizedError):
            client.classify(picture(3))


def test_no_server_is_told() -> None:
    with Client("http://127.0.0.1:9", timeout=5) as client, pytest.raises(UnreachableError, match="127"):
        client.classify(picture(3))


def test_an_httpx_client_of_ones_own_is_used(server: RunningServer) -> None:
    own = httpx.Client(headers={"X-Request-Id": "mine"})
    with Client(url(server), http=own) as client, pytest.raises(RefusedError) as refused:
        client.classify(b"")
    assert refused.value.request_id == "mine"
