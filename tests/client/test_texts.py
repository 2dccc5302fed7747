"""The client against a real server of texts: texts, pairs, entities; and its types against the server's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from mass_serve.client import Answer, Client, EntityAnswer, answers
from mass_serve.server.protocols import results as of_server
from mass_serve.server.protocols.native import messages as of_native
from tests import texts, trained_tokenizers
from tests.server_processes import serving
from tests.trained_tokenizers import TRAINED


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    from mass_serve.model_store.build_options import BuildOptions
    from mass_serve.model_store.build_store import build

    folder = tmp_path_factory.mktemp("texts")
    tokenizer = TRAINED["Bert"]()
    size = tokenizer.get_vocab_size()
    models = texts.finetuned(folder, "Bert", ("guard", "domain"), ("pii",), vocab_size=size)
    trained_tokenizers.save(tokenizer, models.pretrained)
    build(models.pretrained, models.tasks, folder / "store", BuildOptions(force=True))
    with serving(folder / "store") as server:
        server.wait_until_ready()
        with Client(str(server.client.base_url)) as client:
            yield client


def test_a_str_is_a_text(client: Client) -> None:
    answer = client.classify("What is the weather?")
    assert answer.cut == 0
    assert [one.label for one in client.classify(["What is the weather?"] * 2)] == [answer.label] * 2


def test_a_tuple_is_a_pair(client: Client) -> None:
    pair, single = client.classify([("It rains.", "It is wet."), "It rains."], tasks=["guard"])
    assert pair.score != single.score
    assert client.classify(("It rains.", "It is wet."), tasks=["guard"]) == pair


def test_entities_stand_where_they_say(client: Client) -> None:
    text = "\N{GRINNING FACE} Jane lives in Zürich."
    found = client.entities(text, "pii")
    assert found.entities
    assert all(text[one.start : one.end] == one.text for one in found.entities)
    assert client.entities([text], "pii") == [found]
    assert client.entities(text, "pii", aggregation="none") != found


def test_every_task_answers_in_its_way(client: Client) -> None:
    kinds = {answer.task: type(answer) for answer in client.classify_each("Jane lives in Zürich.")}
    assert kinds == {"guard": Answer, "domain": Answer, "pii": EntityAnswer}


def test_the_wrong_question_is_told(client: Client) -> None:
    with pytest.raises(ValueError, match=r"ask it with entities\(\)"):
        client.classify("Jane", tasks=["pii"])
    with pytest.raises(ValueError, match=r"ask it with classify\(\)"):
        client.entities("Jane", "guard")


@pytest.mark.parametrize("wrong", [b"bytes", Path("text.txt"), 3])
def test_what_is_no_text_is_not_sent(client: Client, wrong: Any) -> None:
    client.tasks()
    with pytest.raises(TypeError, match="this server reads texts"):
        client.classify(wrong)


PAIRS = {
    answers.LabelScore: of_server.LabelScore,
    answers.Routing: of_server.Routing,
    answers.Alternative: of_server.AlternativeAnswer,
    answers.Answer: of_server.ImageResult,
    answers.Entity: of_server.EntityInText,
    answers.EntityAnswer: of_server.TokenResult,
    answers.Task: of_native.TaskDescription,
    answers.TaskList: of_native.TaskList,
    answers.ClassifyAnswer: of_native.ClassifyAnswer,
}


@pytest.mark.parametrize(("ours", "servers"), PAIRS.items(), ids=lambda kind: kind.__name__)
def test_an_answer_has_the_fields_of_the_server(ours: type[Any], servers: type[Any]) -> None:
    assert {field.name for field in fields(ours)} == set(servers.model_fields)
