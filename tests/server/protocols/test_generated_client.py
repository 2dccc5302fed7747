"""A client that openapi-python-client makes of the description, and what it gets of a real server."""

from __future__ import annotations

import importlib
import io
import os
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pictures import picture
from tests.server_processes import RunningServer, running

pytestmark = pytest.mark.optional("generator")

KEY = "a-key"


@pytest.fixture(scope="module")
def keyed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    keys = tmp_path_factory.mktemp("keys") / "keys.txt"
    keys.write_text(KEY)
    with running(0.0, {"inference_keys_file": keys, "log_level": "error"}) as server:
        server.wait_until_ready()
        yield server


@pytest.fixture(scope="module")
def generated(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of the generated package."""
    folder = tmp_path_factory.mktemp("generated")
    description = folder / "openapi.json"
    description.write_bytes(server.client.get("/openapi.json").raise_for_status().content)
    command = (sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none")
    paths = ("--path", str(description), "--output-path", str(folder / "mass_client"))
    # The generator formats what it wrote by the ruff that it finds.
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    made = subprocess.run(
        [*command, *paths, "--fail-on-warning"], capture_output=True, text=True, env=environment, check=False
    )
    assert made.returncode == 0, made.stdout + made.stderr
    assert "Warning" not in made.stdout
    sys.path.insert(0, str(folder))
    yield "mass_client"
    sys.path.remove(str(folder))


@pytest.fixture
def client(server: RunningServer, generated: str) -> Iterator[Any]:
    with importlib.import_module(generated).Client(base_url=str(server.client.base_url)) as made:
        yield made


def operation(generated: str, name: str) -> Any:
    """The module of an operation, by its tag and its name."""
    return importlib.import_module(f"{generated}.api.{name}")


def models(generated: str) -> Any:
    return importlib.import_module(f"{generated}.models")


def file_of(generated: str, content: bytes) -> Any:
    return importlib.import_module(f"{generated}.types").File(payload=io.BytesIO(content), file_name="a.png")


def test_no_operation_is_left_out(server: RunningServer, generated: str) -> None:
    paths = server.client.get("/openapi.json").json()["paths"]
    names = {
        f"{one['tags'][0]}.{one['operationId']}" for methods in paths.values() for one in methods.values()
    }
    assert {"classification.classify", "open_inference.model_version_ready"} <= names
    for name in names:
        assert operation(generated, name).sync_detailed


def test_an_image_file_is_classified(client: Any, generated: str) -> None:
    classify = operation(generated, "classification.classify")
    answer = classify.sync(client=client, body=file_of(generated, picture(7)), top_k=2)
    [result] = answer.results
    assert (result.label, result.task, len(result.top)) == ("7", "digits", 2)


def test_images_in_json_are_classified(client: Any, generated: str) -> None:
    kinds = models(generated)
    body = kinds.ClassifyBody(
        images=[kinds.ImageItem(b64=b64encode(picture(n)).decode()) for n in (3, 4)], tasks=["signs"]
    )
    answer = operation(generated, "classification.classify").sync(client=client, body=body)
    assert [(one.task, one.label) for one in answer.results] == [("signs", "3"), ("signs", "4")]


def test_images_in_a_form_are_classified(client: Any, generated: str) -> None:
    files = [file_of(generated, picture(n)) for n in (5, 6)]
    body = models(generated).ClassifyForm(images=files, top_k=1)
    answer = operation(generated, "classification.classify").sync(client=client, body=body)
    assert [one.label for one in answer.results] == ["5", "6"]


def test_tasks_are_listed_and_found(client: Any, generated: str) -> None:
    listed = operation(generated, "classification.list_tasks").sync(client=client)
    assert [task.name for task in listed.tasks] == ["digits", "signs"]
    found = operation(generated, "classification.get_task").sync("signs", client=client)
    assert found == listed.tasks[1]


def test_an_error_has_its_sentence(client: Any, generated: str) -> None:
    missing = operation(generated, "classification.get_task").sync("cats", client=client)
    assert "cats" in missing.error


def test_a_file_is_classified_as_hugging_face_does(client: Any, generated: str) -> None:
    classify = operation(generated, "hugging_face.hugging_face_classify_for_task")
    best, *_ = classify.sync("signs", client=client, body=file_of(generated, picture(9)))
    assert (best.label, best.task) == ("9", "signs")


def test_a_batch_is_inferred_by_a_version(client: Any, generated: str) -> None:
    kinds = models(generated)
    image = kinds.InputTensor(
        name="image", datatype="BYTES", shape=[1], data=[b64encode(picture(8)).decode()]
    )
    infer = operation(generated, "open_inference.infer_by_version")
    answer = infer.sync("signs", "r1", client=client, body=kinds.InferBody(inputs=[image]))
    assert (answer.model_name, answer.model_version) == ("signs", "r1")
    assert {output.name: output.data for output in answer.outputs}["label"] == ["8"]


def test_an_image_is_embedded(client: Any, generated: str) -> None:
    """The small engine's embedding is the colour of the corner."""
    kinds = models(generated)
    body = kinds.EmbeddingsBody(images=[kinds.ImageItem(b64=b64encode(picture(9)).decode())])
    answer = operation(generated, "embeddings.create_embeddings").sync(client=client, body=body)
    assert [one.embedding for one in answer.data] == [[1.0, 0.0, 0.0]]


def test_a_key_is_sent(keyed_server: RunningServer, generated: str) -> None:
    """The description asks for keys where a server does, and the client's are those."""
    described = keyed_server.client.get("/openapi.json").json()
    assert described["paths"]["/v1/tasks"]["get"]["security"]
    package = importlib.import_module(generated)
    address = str(keyed_server.client.base_url)
    list_tasks = operation(generated, "classification.list_tasks")
    with package.Client(base_url=address) as nobody:
        assert "key is needed" in list_tasks.sync(client=nobody).error
    with package.AuthenticatedClient(base_url=address, token=KEY) as somebody:
        assert [task.name for task in list_tasks.sync(client=somebody).tasks] == ["digits", "signs"]
