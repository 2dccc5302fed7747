"""The rooms of the service: what is the same under every transport knows none of them."""

from __future__ import annotations

import re

import pytest

from tests.imports import MODULES, NAMES, PACKAGE, ROOT, below, circle, module_in
from tests.test_imports import loaded_by

# Which other rooms each may enter. `app` puts all of them together.
BASE = {"settings", "errors"}
ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "settings": {"errors"},
    "startup": BASE,
    "serving": BASE,
    "web": BASE | {"serving"},
    "protocols": BASE | {"serving", "web"},
    "operation": BASE | {"serving", "web"},
    "rpc": BASE | {"serving", "protocols"},
    "app": BASE | {"serving", "web", "protocols", "operation", "rpc"},
    "fronts": BASE | {"serving", "web", "operation", "app"},
}
WEB_FRAMEWORKS = {"fastapi", "starlette", "uvicorn", "h11"}
# Rooms that every transport shares, be it HTTP or not.
WITHOUT_TRANSPORT = BASE | {"startup", "serving"}
# What the service knows of engines: a protocol, the data that it speaks of, and how bytes become an input.
OF_THE_ENGINE = {
    f"{PACKAGE}.engine.{name}"
    for name in (
        *("ServingEngine", "EngineSource", "Query", "BatchReport", "Classification", "FORMS"),
        *("Question", "AnswerKind", "ModeName", "AnyQuery", "TextQuery", "unsplit"),
        *("TokenClassification", "TaskAnswer", "Aggregation", "Entity"),
        *("Alternative", "Embedding", "EmbeddingQuestion", "AnyAnswer", "AnyQuestion"),
        *("Priors", "PAPER", "StreamEvidence", "Flip", "flip", "kept", "answer_nbytes"),
        *("UnknownTaskError", "DeviceLostError", "Pool", "release_cached_memory"),
    )
}
# How bytes become inputs, and where strangers' bytes do.
INPUTS = {"inputs", "sandbox"}
# Where options are read, where a source is made of them, and where an engine is described to another process.
OF_ONE_ROOM = {
    "fronts": {f"{PACKAGE}.engine.preprocessing.ImagePreprocessor"},
    "settings": {f"{PACKAGE}.engine.options.EngineOptions"},
    "startup": {f"{PACKAGE}.engine.StoreSource"},
}
# What it knows of a store: its errors, names and entries, how a URL is shown, and how a file is opened.
OF_THE_STORE = {
    *("model_store.errors", "model_store.storage.files", "model_store.storage.regular_files"),
    *("model_store.format.field_types", "model_store.format.entries", "model_store.format.file_names"),
    "model_store.format.groups",
}
PROTOCOLS = {"native", "hugging_face", "open_inference", "embeddings", "kserve"}
SERVER = sorted(module for module in MODULES if module.startswith("server."))


def room_of(module: str) -> str:
    """The room of a module of the server: `serving` of `server.serving.batcher`."""
    return module.split(".")[1]


def protocol_of(module: str) -> str | None:
    """The protocol whose folder a module is in; None for what protocols share, and outside of them."""
    parts = module.split(".")
    return parts[2] if parts[1] == "protocols" and len(parts) > 2 and parts[2] in PROTOCOLS else None


def is_message(module: str) -> bool:
    """Whether a module is a protocol's requests or answers, which know no transport, and not its routes."""
    return room_of(module) == "protocols" and not module.endswith("routes")


def forbidden(module: str, name: str) -> bool:
    """Whether a module of the server must not import what has that full name."""
    first, room, imported = name.partition(".")[0], room_of(module), module_in(name)
    if first in WEB_FRAMEWORKS | {"prometheus_client"}:
        return room in WITHOUT_TRANSPORT or (is_message(module) and first in WEB_FRAMEWORKS)
    if first != PACKAGE or not imported:
        return False
    if imported.partition(".")[0] == "server":
        return _forbidden_room(module, imported)
    if imported.partition(".")[0] == "engine":
        return name not in OF_THE_ENGINE | OF_ONE_ROOM.get(room, set())
    return not below(imported, OF_THE_STORE | INPUTS)


def _forbidden_room(module: str, imported: str) -> bool:
    room, other = room_of(module), room_of(imported)
    if room == other:
        return protocol_of(imported) not in (None, protocol_of(module))
    return other not in ROOMS[room] or (is_message(module) and other == "web")


def test_the_rooms_are_these() -> None:
    assert {room_of(module) for module in SERVER} == ROOMS.keys()
    assert circle(ROOMS) == []


def test_the_documentation_has_every_room() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text.split("## Inside the server")[1].split("##")[0]
    assert set(re.findall(r"`server/(\w+)(?:/|\.py)`", table)) == ROOMS.keys()


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_those_below_it(room: str) -> None:
    wrong = [
        f"{module} imports {name}"
        for module in SERVER
        if room_of(module) == room
        for name in NAMES[module]
        if forbidden(module, name)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("server.serving.batcher", "mass_serve.server.web.receiving.read_body"),
        ("server.serving.batcher", "mass_serve.server.operation.metrics.Metrics"),
        ("server.serving.batcher", "fastapi.Request"),
        ("server.serving.service", "prometheus_client.Gauge"),
        ("server.serving.service", "mass_serve.engine"),
        ("server.serving.service", "mass_serve.engine.Engine"),
        ("server.serving.service", "mass_serve.engine.StoreSource"),
        ("server.serving.service", "mass_serve.engine.loading.load_store"),
        ("server.serving.service", "mass_serve.backbone.ExpertBank"),
        ("server.serving.service", "mass_serve.model_store.store.Store"),
        ("server.web.middleware", "mass_serve.server.operation.metrics"),
        ("server.operation.metrics", "mass_serve.server.protocols.results.LabelScore"),
        ("server.protocols.native.routes", "mass_serve.server.operation.metrics.Metrics"),
        ("server.protocols.native.classify_requests", "mass_serve.server.web.responses.ErrorBody"),
        ("server.protocols.native.messages", "starlette.responses.Response"),
        ("server.protocols.bodies", "fastapi.Request"),
        ("server.protocols.bodies", "mass_serve.server.protocols.native.messages.TaskList"),
        ("server.protocols.hugging_face.messages", "mass_serve.server.protocols.open_inference.tensors"),
        ("server.errors", "mass_serve.server.settings.Settings"),
        ("server.web.process", "mass_serve.server.app.create_app"),
    ],
)
def test_the_rule_catches(module: str, name: str) -> None:
    assert forbidden(module, name)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("server.serving.batcher", "mass_serve.engine.ServingEngine"),
        ("server.serving.decoders", "mass_serve.sandbox.pool.SandboxPool"),
        ("server.startup", "mass_serve.engine.StoreSource"),
        ("server.serving.keys", "mass_serve.model_store.storage.regular_files.RegularFile"),
        ("server.web.middleware", "mass_serve.server.serving.service.Service"),
        ("server.protocols.native.routes", "fastapi.Request"),
        ("server.protocols.native.routes", "mass_serve.server.web.receiving.read_body"),
        ("server.protocols.hugging_face.routes", "mass_serve.server.protocols.bodies.is_json"),
        ("server.operation.metrics", "prometheus_client.Gauge"),
        ("server.app", "mass_serve.server.operation.metrics.Metrics"),
    ],
)
def test_the_rule_allows(module: str, name: str) -> None:
    assert not forbidden(module, name)


def test_nothing_of_the_web_is_needed_to_serve_without_http() -> None:
    """The queue, the engine in service and a protocol's messages are the same under every transport."""
    messages = [module for module in SERVER if is_message(module)]
    assert "server.protocols.native.messages" in messages
    shared = [module for module in SERVER if room_of(module) in WITHOUT_TRANSPORT]
    loaded = loaded_by("; ".join(f"import {PACKAGE}.{module}" for module in (*shared, *messages)))
    assert not loaded & (WEB_FRAMEWORKS | {"prometheus_client", "typer"})
