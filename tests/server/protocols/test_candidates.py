"""Zero-shot classification among labels that a store knows, asked for by Hugging Face's own client."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest
import torch
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from mass_serve.engine import Engine
from tests.pictures import picture
from tests.server.protocols.test_native import refused
from tests.server_processes import RunningServer

TEXT = "w10 w11 w12"


def client(server: RunningServer, path: str = "") -> InferenceClient:
    return InferenceClient(model=f"http://127.0.0.1:{server.port}{path}", timeout=20)


def test_an_image_among_candidates(server: RunningServer) -> None:
    found = client(server, "/models/signs").zero_shot_image_classification(
        picture(7), candidate_labels=["3", "7"]
    )
    assert [one.label for one in found] == ["7", "3"]
    assert sum(one.score for one in found) == pytest.approx(1)
    assert found[0]["task"] == "signs"


def test_a_text_among_candidates_is_of_the_task_that_has_them(
    text_server: RunningServer, text_engine: Engine
) -> None:
    labels = text_engine.tasks["domain"].labels
    chosen = [labels[1], labels[0]]
    [answer] = text_engine.classify([TEXT], ["domain"])
    for path in ("", "/models/domain"):
        found = client(text_server, path).zero_shot_classification(TEXT, chosen)
        scores = {one.label: one.score for one in found}
        expected = answer.logits[[1, 0]].softmax(0)
        torch.testing.assert_close(torch.tensor([scores[label] for label in chosen]), expected)
        assert {one["task"] for one in found} == {"domain"}
    alone = client(text_server).zero_shot_classification(TEXT, chosen, multi_label=True)
    for one in alone:
        assert one.score == pytest.approx(float(answer.probabilities[labels.index(one.label)]))


def test_texts_in_a_list_have_a_list_each(text_server: RunningServer, text_engine: Engine) -> None:
    labels = list(text_engine.tasks["guard"].labels)
    body = {"inputs": [TEXT, "w20"], "parameters": {"candidate_labels": labels}}
    answer = text_server.client.post("/models/guard", json=body).raise_for_status().json()
    assert [len(of_text) for of_text in answer] == [len(labels)] * 2


def ask(server: RunningServer, path: str = "/", **parameters: Any) -> httpx.Response:
    image = base64.b64encode(picture(7)).decode()
    return server.client.post(path, json={"inputs": image, "parameters": parameters})


def test_a_label_that_no_task_has_is_told(server: RunningServer, text_server: RunningServer) -> None:
    with pytest.raises(HfHubHTTPError, match="were trained on"):
        client(server).zero_shot_image_classification(picture(7), candidate_labels=["7", "a zebra"])
    with pytest.raises(HfHubHTTPError, match="GET /v1/tasks lists"):
        client(text_server).zero_shot_classification(TEXT, ["sport", "politics"])


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"candidate_labels": []}, "1 to 1000"),
        ({"candidate_labels": ["7"] * 1001}, "1 to 1000"),
        ({"candidate_labels": "7"}, "candidate_labels"),
        ({"candidate_labels": ["7"], "hypothesis_template": "a photo of {}"}, "hypothesis_template"),
        ({"candidate_labels": ["7"], "top_k": 1}, "top_k says nothing beside candidate_labels"),
        ({"candidate_labels": ["7"], "function_to_apply": "none"}, "function_to_apply says nothing"),
        ({"multi_label": True}, "multi_label is about candidate_labels"),
        ({"hypothesis_template": "a photo of {}"}, "hypothesis_template is about candidate_labels"),
    ],
)
def test_bad_candidates(server: RunningServer, parameters: dict[str, Any], words: str) -> None:
    refused(ask(server, **parameters), 400, words)


def test_saying_nothing_of_candidates_is_no_mistake(server: RunningServer) -> None:
    assert ask(server, multi_label=False, hypothesis_template=None).status_code == 200


def test_a_candidate_that_is_named_twice_is_one(server: RunningServer) -> None:
    once, twice = (ask(server, candidate_labels=given).json() for given in (["7", "3"], ["7", "3", "7"]))
    assert [one["label"] for one in twice] == ["7", "3"]
    assert twice == once


def test_the_task_must_exist(server: RunningServer) -> None:
    refused(ask(server, "/models/cats", candidate_labels=["7"]), 404, "cats")
