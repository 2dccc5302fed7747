"""A real server answers as its OpenAPI description says; Schemathesis thinks of what to send it.

Two things make the description stricter than it is published: `default` responses are taken out, so that
every status has to be announced by name, and names of tasks and models that exist are put in, so that
requests get past the 404 of a name that nobody has. (Other names are tried too: as requests that do not fit.)
"""

from __future__ import annotations

import asyncio
import json
import re
from base64 import b64encode
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import StopReason, events, from_schema
from schemathesis.engine.recorder import ScenarioRecorder

from mass_serve.server.app import create_app
from mass_serve.server.settings import load_settings
from tests.pictures import picture
from tests.server.fakes import FakeEngine
from tests.server_processes import RunningServer, running

EXAMPLES = 10

ENGINE = FakeEngine()
NAMES = {
    "name": [*ENGINE.tasks],
    "task": ["auto", *ENGINE.tasks],
    "model": ["auto", *ENGINE.tasks],
    "version": [ENGINE.store_revision, *{task.revision for task in ENGINE.tasks.values()}],
}
TENSOR = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [b64encode(picture(7)).decode()]}
TEXT_TENSORS = [{**TENSOR, "name": name, "data": ["It rains."]} for name in ("text", "text_pair")]
# By what the store reads and the end of a path: JSON that it answers.
BODIES: dict[str, dict[str, dict[str, Any]]] = {
    "images": {
        ":predict": {"instances": [{"b64": b64encode(picture(7)).decode()}]},
        "/infer": {"inputs": [TENSOR]},
        "/embeddings": {"images": [{"b64": b64encode(picture(7)).decode()}]},
    },
    "texts": {
        ":predict": {"instances": ["It rains.", {"text": "It rains.", "text_pair": "It is wet."}]},
        "/infer": {"inputs": TEXT_TENSORS},
        "/classify": {"texts": ["It rains.", {"text": "It rains.", "text_pair": "It is wet."}]},
        "/predict": {"inputs": [["It rains."], ["It rains.", "It is wet."]], "raw_scores": True},
        "/": {"inputs": "It rains.", "parameters": {"top_k": 2}},
        "/embeddings": {"input": ["It rains.", "It is wet."], "model": "base"},
        "/embed": {"inputs": "It rains.", "truncate": True},
        "/models/{task}": {"inputs": ["It rains.", "It is wet."]},
    },
}
# Only models of texts have these.
OF_TEXTS = {"GET /info", "GET /models/{task}/info", "POST /embed", "POST /models/{task}/embed"}

KEY = "a-key-for-everything"


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys") / "keys.txt"
    file.write_text(KEY)
    return file


def with_keys(file: Path) -> dict[str, object]:
    """Settings of a server that asks for a key, and whose repository is open."""
    return {"inference_keys_file": file, "admin_keys_file": file}


def strict(description: dict[str, Any], reads: str) -> dict[str, Any]:
    """The description without the responses that allow anything, and with names and bodies that work."""
    for path, item in description["paths"].items():
        for operation in item.values():
            operation["responses"].pop("default", None)
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "path":
                    parameter["schema"]["enum"] = NAMES[parameter["name"]]
            known = [body for end, body in BODIES[reads].items() if path.endswith(end)]
            if known and "requestBody" in operation:
                operation["requestBody"]["content"]["application/json"]["example"] = known[0]
            if path.endswith("/infer"):
                # A length made up would fit no body.
                operation["parameters"] = [one for one in operation["parameters"] if one["in"] == "path"]
    return description


@dataclass
class Findings:
    """What was answered, by operation, and what of it the description does not say."""

    statuses: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    problems: list[str] = field(default_factory=list)

    def add(self, recorder: ScenarioRecorder) -> None:
        for interaction in recorder.interactions.values():
            assert interaction.response is not None, f"{recorder.label} was not answered"
            self.statuses[recorder.label].add(interaction.response.status_code)
        failed = [
            check.failure_info
            for checks in recorder.checks.values()
            for check in checks
            if check.failure_info
        ]
        self.problems += [f"{info.failure}\n{info.code_sample}" for info in failed]


def tried(description: dict[str, Any], url: str, keyed: bool) -> Findings:
    """Sends to every operation what fits its description and what does not, always the same."""
    config = {
        "seed": 1,
        "base-url": url,
        **({"auth": {"openapi": {"APIKeyHeader": {"api_key": KEY}}}} if keyed else {}),
        "continue-on-failure": True,
        "cache": {"enabled": False},
        "generation": {"max-examples": EXAMPLES, "deterministic": True, "with-security-parameters": False},
        "phases": {"stateful": {"enabled": False}},
        "checks": {
            # No schema can say what bytes are an image, so most bodies that fit it are rightly refused.
            "positive_data_acceptance": {"enabled": False},
            # A caller may ask for an answer within a microsecond.
            "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", "503", "504"]},
        },
    }
    schema = schemathesis.openapi.from_dict(description, config=SchemathesisConfig.from_dict(config))
    findings = Findings()
    for event in from_schema(schema).execute():
        assert not isinstance(event, (events.NonFatalError, events.FatalError)), event
        if isinstance(event, events.ScenarioFinished):
            findings.add(event.recorder)
        elif isinstance(event, events.EngineFinished):
            assert event.stop_reason is StopReason.COMPLETED
    return findings


@pytest.mark.slow
@pytest.mark.parametrize(("reads", "keyed"), [("images", True), ("images", False), ("texts", False)])
def test_every_response_is_as_described(key_file: Path, reads: str, keyed: bool) -> None:
    settings: dict[str, object] = {"max_body_bytes": 200_000, "max_pixels": 1_000_000, "log_level": "error"}
    keys = with_keys(key_file) if keyed else {}
    variables = {"FAKE_READS_TEXTS": "1"} if reads == "texts" else None
    with running(0.0, {**settings, **keys}, variables) as server:
        server.wait_until_ready()
        description = server.client.get("/openapi.json").raise_for_status().json()
        operations = {
            f"{method.upper()} {path}" for path, item in description["paths"].items() for method in item
        }
        findings = tried(strict(description, reads), str(server.client.base_url), keyed)
    assert not findings.problems, "\n\n".join(findings.problems)
    assert findings.statuses.keys() == operations
    never = {label for label, statuses in findings.statuses.items() if 200 not in statuses}
    closed = set() if keyed else {label for label in operations if "/v2/repository/" in label}
    assert never == closed | (OF_TEXTS if reads == "images" else set())
    seen = set().union(*findings.statuses.values())
    assert not seen & set(range(500, 600)) - {503, 504}


def test_keys_are_described_where_they_are_asked_for(key_file: Path) -> None:
    def keyed(**settings: object) -> set[str]:
        description = create_app(load_settings(settings), cast(Any, None)).openapi()
        assert ("securitySchemes" in description["components"]) == bool(settings)
        return {
            operation["operationId"]
            for item in description["paths"].values()
            for operation in item.values()
            if operation.get("security")
        }

    repository = {"repository_index", "load_model", "unload_model"}
    assert keyed() == set()
    assert keyed(admin_keys_file=key_file) == repository
    inference = keyed(inference_keys_file=key_file)
    assert {"classify", "predict", "infer", "model_version_ready", "list_tasks"} <= inference
    assert not inference & {*repository, "livez", "metrics", "page"}
    assert keyed(**with_keys(key_file)) == inference | repository


def test_operations_have_names_and_bodies_are_components() -> None:
    description = create_app(load_settings({}), cast(Any, None)).openapi()
    operations = [one for item in description["paths"].values() for one in item.values()]
    names = [one["operationId"] for one in operations]
    assert len(names) == len(set(names))
    assert all(re.fullmatch("[a-z]+(_[a-z]+)*", name) for name in names)
    bodies = [one["requestBody"]["content"] for one in operations if "requestBody" in one]
    schemas = [content["schema"] for of_types in bodies for content in of_types.values()]
    assert not [schema for schema in schemas if "properties" in schema]


def test_a_path_with_two_methods_names_both(server: RunningServer) -> None:
    response = server.client.put("/")
    assert response.status_code == 405
    assert response.headers["Allow"] == "GET, POST"
    assert "GET or POST" in response.json()["error"]


def test_who_asks_first_for_the_description_and_all_who_ask_meanwhile_get_the_whole() -> None:
    app = create_app(load_settings({}), cast(Any, None))
    assert app.openapi_schema is None, "a start does not wait for it"
    with ThreadPoolExecutor(4) as callers:
        asked = [callers.submit(lambda: json.dumps(app.openapi())) for _ in range(4)]
    assert len({answer.result() for answer in asked}) == 1


def test_the_description_names_the_path_that_a_proxy_serves_it_under() -> None:
    app = create_app(load_settings({}), cast(Any, None))

    async def described(prefix: str) -> dict[str, Any]:
        transport = httpx.ASGITransport(app, root_path=prefix)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            answer = await client.get(f"{prefix}/openapi.json")
        return cast(dict[str, Any], answer.raise_for_status().json())

    assert asyncio.run(described("/shop"))["servers"] == [{"url": "/shop"}]
    assert "servers" not in asyncio.run(described(""))
