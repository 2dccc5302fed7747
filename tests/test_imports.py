"""Imports run one way, from the command line down to the kernels, and never in a circle."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import mass_serve

ROOT = Path(__file__).parent.parent
PACKAGE = "mass_serve"
# What each folder may import: a module, or a folder and all in it. Siblings are not in each other's sets.
GROUND = {"merging", "kernels"}
PARTS = {"model_store", "router", "backbone"}
BELOW: dict[str, set[str]] = {
    "kernels": set(),
    "merging": set(),
    "router": GROUND,
    "backbone": GROUND,
    "model_store": GROUND | {"backbone.architecture"},
    "engine": GROUND | PARTS,
    "evaluation": GROUND | PARTS | {"engine"},
    "server": GROUND | PARTS | {"engine"},
    "cli": GROUND | PARTS | {"engine", "evaluation", "server"},
}
OUTSIDE = {"benchmarks", "examples", "tests", "docs"}
# The rooms inside `server/`, and which others each may enter. `app` puts all of them together.
BASE = {"settings", "errors"}
ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "settings": {"errors"},
    "startup": BASE,
    "serving": BASE,
    "web": BASE | {"serving"},
    "protocols": BASE | {"serving", "web"},
    "operation": BASE | {"serving", "web"},
    "app": BASE | {"serving", "web", "protocols", "operation"},
}
# What the service may know of the engine: its protocol, and the data that the protocol speaks of.
OF_THE_ENGINE = {"engine", "engine.protocol", "engine.options", "engine.inputs"}
WEB_FRAMEWORKS = {"fastapi", "starlette", "uvicorn", "h11"}
# Rooms that every transport shares, be it HTTP or not.
WITHOUT_TRANSPORT = BASE | {"startup", "serving"}


def _module_of(path: Path) -> str:
    """The name of a file below the package, such as `engine.inputs.decode`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {_module_of(path): path for folder in BELOW for path in (ROOT / folder).rglob("*.py")}


def _names(path: Path) -> set[str]:
    """Everything that a file imports, wherever in it, by its full name: `mass_serve.engine.Engine`."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{path}: imports are absolute"
            assert not node.level, f"{path}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _module_in(name: str) -> str:
    """The module of a full name, without our package: `engine` of `mass_serve.engine.Engine`."""
    ours = name.removeprefix(f"{PACKAGE}.")
    if ours == name:
        return name
    while ours and ours not in MODULES:
        ours = ours.rpartition(".")[0]
    return ours


def _imported(path: Path) -> set[str]:
    """Every module that a file imports, by its full name."""
    return {
        f"{PACKAGE}.{_module_in(name)}".rstrip(".") if name.startswith(f"{PACKAGE}.") else name
        for name in _names(path)
    }


def _below(module: str, allowed: set[str]) -> bool:
    """Whether a module is one of those allowed, or within one."""
    return any(module == name or module.startswith(f"{name}.") for name in allowed)


def _forbidden(folder: str, imported: str) -> bool:
    """Whether a file of the folder must not import that module."""
    first, _, rest = imported.partition(".")
    if first in OUTSIDE | BELOW.keys():
        return True  # of the checkout, or a part of ours under a name that others have too
    if first != PACKAGE or not rest or rest.partition(".")[0] == folder:
        return False
    return not _below(rest, BELOW[folder])


def _room_of(module: str) -> str:
    """The room of a module of the server: `serving` of `server.serving.batcher`."""
    return module.split(".")[1]


def _is_message(module: str) -> bool:
    """Whether a module is a protocol's requests or answers, which know no transport, and not its routes."""
    return _room_of(module) == "protocols" and not module.endswith("routes")


def _forbidden_in_server(module: str, name: str) -> bool:
    """Whether a module of the server must not import what has that full name."""
    room = _room_of(module)
    if name.partition(".")[0] in WEB_FRAMEWORKS | {"prometheus_client"} and room in WITHOUT_TRANSPORT:
        return True
    if name.partition(".")[0] in WEB_FRAMEWORKS and _is_message(module):
        return True
    if name == f"{PACKAGE}.engine.Engine":
        return True
    imported = _module_in(name)
    if imported.startswith("engine."):
        return not _below(imported, OF_THE_ENGINE - {"engine"})
    if not imported.startswith("server.") or _room_of(imported) == room:
        return False
    return _room_of(imported) not in ROOMS[room] or (_is_message(module) and _room_of(imported) == "web")


@pytest.mark.parametrize("folder", BELOW)
def test_imports_run_downwards_only(folder: str) -> None:
    files = {module: path for module, path in MODULES.items() if module.split(".")[0] == folder}
    assert files
    wrong = [
        f"{module} imports {name}"
        for module, path in files.items()
        for name in _imported(path)
        if _forbidden(folder, name)
    ]
    assert wrong == []


def test_the_rule_itself_catches_what_it_is_for() -> None:
    assert _forbidden("kernels", "mass_serve.server.app")
    assert _forbidden("router", "mass_serve.backbone")
    assert _forbidden("model_store", "mass_serve.backbone")
    assert _forbidden("evaluation", "mass_serve.server.settings")
    assert _forbidden("engine", "kernels.rows")
    assert _forbidden("engine", "benchmarks.timing")
    assert not _forbidden("model_store", "mass_serve.backbone.architecture")
    assert not _forbidden("engine", "mass_serve.kernels")
    assert not _forbidden("server", "mass_serve")
    assert not _forbidden("engine", "torch")


SERVER = sorted(module for module in MODULES if module.startswith("server."))


def test_the_rooms_of_the_server_are_these() -> None:
    assert {_room_of(module) for module in SERVER} == ROOMS.keys()
    assert _circle(ROOMS) == []


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_those_below_it(room: str) -> None:
    wrong = [
        f"{module} imports {name}"
        for module in SERVER
        if _room_of(module) == room
        for name in _names(MODULES[module])
        if _forbidden_in_server(module, name)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("server.serving.batcher", "mass_serve.server.web.receiving.read_body"),
        ("server.serving.batcher", "mass_serve.server.operation.metrics.Metrics"),
        ("server.serving.batcher", "fastapi.Request"),
        ("server.serving.service", "prometheus_client.Gauge"),
        ("server.serving.service", "mass_serve.engine.Engine"),
        ("server.serving.service", "mass_serve.engine.loading.load_store"),
        ("server.web.middleware", "mass_serve.server.operation.metrics"),
        ("server.operation.metrics", "mass_serve.server.protocols.native.answers.LabelScore"),
        ("server.protocols.native.routes", "mass_serve.server.operation.metrics.Metrics"),
        ("server.protocols.native.classify_requests", "mass_serve.server.web.responses.ErrorBody"),
        ("server.protocols.native.answers", "starlette.responses.Response"),
        ("server.protocols.json_bodies", "fastapi.Request"),
        ("server.errors", "mass_serve.server.settings.Settings"),
        ("server.web.process", "mass_serve.server.app.create_app"),
    ],
)
def test_the_rule_of_the_rooms_catches(module: str, name: str) -> None:
    assert _forbidden_in_server(module, name)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("server.serving.batcher", "mass_serve.engine.ServingEngine"),
        ("server.serving.decode_pool", "mass_serve.engine.inputs.decode.decoded"),
        ("server.web.middleware", "mass_serve.server.serving.service.Service"),
        ("server.protocols.native.routes", "fastapi.Request"),
        ("server.protocols.native.routes", "mass_serve.server.web.receiving.read_body"),
        ("server.operation.metrics", "prometheus_client.Gauge"),
        ("server.app", "mass_serve.server.operation.metrics.Metrics"),
    ],
)
def test_the_rule_of_the_rooms_allows(module: str, name: str) -> None:
    assert not _forbidden_in_server(module, name)


def _circle(graph: Mapping[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def _faces() -> dict[str, str]:
    """Where each name that a folder's face hands on comes from: `engine.Engine` from `engine.engine`."""
    return {
        f"{folder}.{name.rpartition('.')[2]}": _module_in(name)
        for folder, path in MODULES.items()
        if path.name == "__init__.py"
        for name in _names(path)
        if name.startswith(f"{PACKAGE}.")
    }


def _behind(name: str, faces: Mapping[str, str]) -> str:
    """The module that a full name of ours is defined in, however many faces hand it on."""
    own = name.removeprefix(f"{PACKAGE}.")
    seen = set()
    while own in faces and own not in seen:
        seen.add(own)
        own = f"{faces[own]}.{own.rpartition('.')[2]}"
    return _module_in(f"{PACKAGE}.{own}")


def _graph() -> dict[str, set[str]]:
    """Which file needs which. A face only hands names on: whoever imports it means the file behind it."""
    faces = _faces()
    files = {module: path for module, path in MODULES.items() if path.name != "__init__.py"}
    return {
        module: {_behind(name, faces) for name in _names(path) if name.startswith(f"{PACKAGE}.")} - {module}
        for module, path in files.items()
    }


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = _graph()
    assert _circle(graph) == []
    assert "engine.engine" in graph["engine.protocol"] | graph["engine.source"], "names are followed"


def test_a_circle_is_found() -> None:
    assert _circle({"a": {"b"}, "b": {"a"}})
    assert _circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": set()})
    assert not _circle({"a": {"b"}, "b": {"c"}})
    faces = {"engine.Engine": "engine.engine", "kernels.low_rank": "kernels.low_rank"}
    assert _behind("mass_serve.engine.Engine", faces) == "engine.engine", "also through a face"


def test_no_file_has_the_name_of_a_well_known_module() -> None:
    """A file run as a script puts its folder first on the path, where such a neighbour hides another."""
    known = (sys.stdlib_module_names | packages_distributions().keys()) - {PACKAGE}
    assert {"http", "inspect", "numpy", "requests"} <= known
    paths = [path for folder in (*BELOW, *OUTSIDE) for path in (ROOT / folder).rglob("*")]
    names = {path: path.stem for path in paths if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert [path for path, name in names.items() if name in known] == []


def _loaded_by(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has after a statement."""
    code = f"import sys; {statement}; print(*sorted({{m.partition('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def test_the_arithmetic_needs_torch_alone() -> None:
    """A GPU machine may have nothing else: importing these must not import the service's dependencies."""
    loaded = _loaded_by("from mass_serve import kernels, merging, router, backbone")
    assert "torch" in loaded
    assert not loaded & {"pydantic", "fastapi", "safetensors", "fsspec", "typer", "PIL", "transformers"}


@pytest.mark.parametrize("folder", ["engine", "evaluation"])
def test_no_web_framework_is_needed_without_a_server(folder: str) -> None:
    loaded = _loaded_by(f"import mass_serve.{folder}")
    assert not loaded & {"fastapi", "starlette", "uvicorn", "prometheus_client", "typer"}


def test_nothing_of_the_web_is_needed_to_serve_without_http() -> None:
    """The queue, the engine in service and a protocol's messages are the same under every transport."""
    messages = [module for module in SERVER if _is_message(module)]
    assert "server.protocols.native.answers" in messages
    shared = [module for module in SERVER if _room_of(module) in WITHOUT_TRANSPORT]
    loaded = _loaded_by("; ".join(f"import {PACKAGE}.{module}" for module in (*shared, *messages)))
    assert not loaded & (WEB_FRAMEWORKS | {"prometheus_client", "typer"})


@pytest.mark.parametrize(
    "module", sorted(name for name, path in MODULES.items() if path.name == "__init__.py")
)
def test_everything_that_a_folder_exports_exists(module: str) -> None:
    exec(f"from mass_serve.{module} import *", {})


def test_every_folder_of_the_package_is_here() -> None:
    """A link for each: without one a folder would be missing from the wheel."""
    assert {path.name for path in Path(mass_serve.__file__).parent.iterdir() if path.is_dir()} - {
        "__pycache__"
    } == BELOW.keys()
