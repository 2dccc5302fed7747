"""Embeddings over HTTP: those of the engine, by real clients, and refusals that say what is wrong."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from huggingface_hub import InferenceClient

from mass_serve.engine import Engine
from tests import texts
from tests.pictures import picture
from tests.server.protocols.test_native import refused
from tests.server_processes import RunningServer

TEXTS = ["w10 w11 w12", "w20", "w30 w31"]
LONG = "w30 " * 200


def ask(server: RunningServer, **body: Any) -> dict[str, Any]:
    answer: dict[str, Any] = server.client.post("/v1/embeddings", json=body).raise_for_status().json()
    return answer


def values(answer: dict[str, Any]) -> torch.Tensor:
    assert [one["index"] for one in answer["data"]] == list(range(len(answer["data"])))
    return torch.tensor([one["embedding"] for one in answer["data"]])


@pytest.mark.parametrize("task", [None, "guard"])
def test_texts_have_the_embeddings_of_the_engine(
    text_server: RunningServer, text_engine: Engine, task: str | None
) -> None:
    answer = ask(text_server, input=TEXTS, model=task or "base")
    torch.testing.assert_close(values(answer), F.normalize(text_engine.embed(TEXTS, task), dim=1))
    assert answer["model"] == (task or "base")
    assert answer["store_revision"] == text_engine.store_revision
    # Each text has its words and BERT's two marks.
    assert answer["usage"] == {"prompt_tokens": 6 + 6, "total_tokens": 6 + 6}
    assert text_server.metric('mass_questions_total{answer="embedding"}') >= 1


def test_a_single_text_is_embedded_without_naming_a_model(text_server: RunningServer) -> None:
    assert torch.equal(values(ask(text_server, input=TEXTS[0])), values(ask(text_server, input=TEXTS[:1])))


@pytest.mark.parametrize("model", ["base", "auto", None])
def test_no_task_is_named_in_three_ways(text_server: RunningServer, model: str | None) -> None:
    answer = ask(text_server, input=TEXTS[0], model=model)
    assert answer["model"] == "base"
    path = "/embed" if model is None else "/models/auto/embed"
    of_embed = embed(text_server, path, inputs=TEXTS[0]).raise_for_status().json()
    assert torch.equal(torch.tensor(of_embed), values(answer))


def test_what_is_cut_of_a_text_is_told(text_server: RunningServer) -> None:
    short, long = ask(text_server, input=["w20", LONG])["data"]
    assert (short["cut"], long["cut"]) == (0, 200 + 2 - texts.MAX_TOKENS)


def test_base64_holds_the_same_numbers(text_server: RunningServer) -> None:
    [packed] = ask(text_server, input=TEXTS[0], encoding_format="base64")["data"]
    numbers = np.frombuffer(base64.b64decode(packed["embedding"]), "<f4")
    assert torch.equal(torch.from_numpy(numbers.copy()), values(ask(text_server, input=TEXTS[0]))[0])


def test_a_large_body_has_the_same_answer(text_server: RunningServer) -> None:
    """It is parsed in a worker process: it is padded with what is not read."""
    large = ask(text_server, input=TEXTS, user="x" * (1 << 20))
    assert torch.equal(values(large), values(ask(text_server, input=TEXTS)))
    body = {"inputs": TEXTS, "more": "x" * (1 << 20)}
    of_embed = text_server.client.post("/embed", json=body).raise_for_status().json()
    assert torch.equal(torch.tensor(of_embed), values(large))


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ({}, 400, "'input'"),
        ({"input": TEXTS, "images": []}, 400, "'input'"),
        ({"input": []}, 400, "at least one"),
        ({"input": [1, 2, 3]}, 400, "makes the tokens itself"),
        ({"input": [[1, 2], [3]]}, 400, "tokens"),
        ({"input": [None]}, 400, "input[0]"),
        ({"input": {"text": "w10"}}, 400, "input is no text"),
        ({"input": [["w10"]]}, 400, "input[0] is no text"),
        ({"input": ["w10", True]}, 400, "input[1] is no text"),
        ({"input": 7}, 400, "tokens"),
        ({"input": ""}, 400, "empty"),
        ({"input": ["w10"] * 17}, 413, "limit is 16"),
        ({"input": "w10", "model": "cats"}, 404, "cats"),
        ({"input": "w10", "model": 7}, 400, "model"),
        ({"input": "w10", "dimensions": 7}, 400, "dimensions"),
        ({"input": "w10", "encoding_format": "int8"}, 400, "encoding_format"),
        ({"images": [{"b64": ""}]}, 400, "texts"),
        ({"images": ["x"]}, 400, "images"),
    ],
)
def test_bad_requests(text_server: RunningServer, body: dict[str, Any], status: int, word: str) -> None:
    refused(text_server.client.post("/v1/embeddings", json=body), status, word)


def test_dimensions_that_are_those_of_the_store_are_taken(text_server: RunningServer) -> None:
    assert len(ask(text_server, input="w10", dimensions=48)["data"][0]["embedding"]) == 48


def embed(server: RunningServer, path: str = "/embed", **body: Any) -> httpx.Response:
    return server.client.post(path, json=body)


@pytest.mark.parametrize(("path", "task"), [("/embed", None), ("/models/domain/embed", "domain")])
def test_clients_of_text_embeddings_inference_are_answered(
    text_server: RunningServer, text_engine: Engine, path: str, task: str | None
) -> None:
    plain = text_engine.embed(TEXTS, task)
    unit = embed(text_server, path, inputs=TEXTS).raise_for_status().json()
    torch.testing.assert_close(torch.tensor(unit), F.normalize(plain, dim=1))
    found = embed(text_server, path, inputs=TEXTS, normalize=False).raise_for_status().json()
    torch.testing.assert_close(torch.tensor(found), plain)
    one = embed(text_server, path, inputs=TEXTS[0]).raise_for_status().json()
    assert one == unit[:1]


def test_a_long_text_is_cut_where_it_is_asked_and_refused_where_it_may_not(
    text_server: RunningServer,
) -> None:
    marked = LONG + "w50"
    left = embed(text_server, inputs=marked, truncation_direction="Left").raise_for_status().json()
    right = embed(text_server, inputs=marked, truncation_direction="Right").raise_for_status().json()
    assert left != right
    assert right == embed(text_server, inputs=LONG).raise_for_status().json()
    refused(embed(text_server, inputs=marked, truncate=False), 413, "token")


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ({"inputs": []}, 400, "at least one"),
        ({"inputs": [1]}, 400, "inputs"),
        ({}, 400, "inputs"),
        ({"inputs": "w10", "prompt_name": "query"}, 400, "prompt_name"),
        ({"inputs": "w10", "dimensions": 7}, 400, "dimensions"),
        ({"inputs": "w10", "normalize": "yes"}, 400, "normalize"),
    ],
)
def test_bad_requests_to_embed(
    text_server: RunningServer, body: dict[str, Any], status: int, word: str
) -> None:
    refused(embed(text_server, **body), status, word)


def test_an_unknown_task_has_no_embeddings(text_server: RunningServer) -> None:
    refused(embed(text_server, "/models/cats/embed", inputs="w10"), 404, "cats")


def test_hugging_faces_client_extracts_features(text_server: RunningServer, text_engine: Engine) -> None:
    client = InferenceClient(model=f"{text_server.client.base_url}/models/guard/embed")
    found = client.feature_extraction(TEXTS[0], normalize=True)
    expected = F.normalize(text_engine.embed(TEXTS[:1], "guard"), dim=1)
    torch.testing.assert_close(torch.from_numpy(found), expected)


def test_images_are_embedded(server: RunningServer) -> None:
    """The small engine's embedding is the colour of the corner."""
    images = [{"b64": base64.b64encode(picture(3, 4)).decode()}]
    answer = ask(server, images=images, model="signs")
    torch.testing.assert_close(values(answer), torch.tensor([[0.6, 0.8, 0.0]]))
    assert answer["usage"]["total_tokens"] == 0
    assert "cut" not in answer["data"][0]
    refused(server.client.post("/v1/embeddings", json={"input": "w10"}), 400, "images")
    refused(server.client.post("/v1/embeddings", json={"images": [{"b64": "?"}]}), 400, "images[0]")
    refused(server.client.post("/v1/embeddings", json={"images": []}), 400, "at least one")


@pytest.mark.optional("openai")
def test_openais_client_is_answered(text_server: RunningServer, text_engine: Engine) -> None:
    from openai import NotFoundError, OpenAI

    with OpenAI(base_url=f"{text_server.client.base_url}/v1", api_key="none", max_retries=0) as client:
        made = client.embeddings.create(input=TEXTS, model="guard")  # asks for base64, as it does by default
        plain = client.embeddings.create(input=TEXTS, model="guard", encoding_format="float")
        with pytest.raises(NotFoundError) as refusal:
            client.embeddings.create(input=TEXTS, model="cats")
    assert "cats" in str(refusal.value.body)
    expected = F.normalize(text_engine.embed(TEXTS, "guard"), dim=1)
    for answer in (made, plain):
        torch.testing.assert_close(torch.tensor([one.embedding for one in answer.data]), expected)
        assert answer.usage.total_tokens == 12
