"""The Dockerfile, its entry point and the compose files fit the server, and each other.

That the image can be built and behaves is for `docker/verify.sh`, which needs a container engine.
"""

from __future__ import annotations

import json
import os
import re
import ssl
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from mass_serve import __version__
from mass_serve.engine import Engine
from mass_serve.inputs.texts import Text
from mass_serve.model_store.build_store import build
from mass_serve.model_store.plan import TaskInput
from mass_serve.server.settings import Settings, load_settings
from tests.certificates import write_certificate
from tests.docker.material import (
    DOCKER,
    ROOT,
    environment,
    health_check,
    instructions,
    last,
    read_yaml,
    seconds,
    stages,
)

COMPOSE = read_yaml(DOCKER / "compose.yaml")
OVERRIDES = {name: read_yaml(DOCKER / f"compose.{name}.yaml") for name in ("cuda", "keys")}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
# What Triton's clients expect.
GRPC_PORT = 8001
SETTINGS = {f"MASS_{name.upper()}" for name in Settings.model_fields}


def _settings(given: dict[str, str], patch: pytest.MonkeyPatch) -> Settings:
    """The settings that a server with these variables has."""
    for name in SETTINGS & os.environ.keys():
        patch.delenv(name)
    for name, value in given.items():
        if name.startswith("MASS_"):
            patch.setenv(name, value)
    return load_settings({})


def _longest_end(settings: Settings) -> float:
    """Seconds from SIGTERM to the end, at worst: serving on, slow clients, the last request's batch."""
    return settings.drain_seconds + 2 * settings.request_timeout + 1


# --- The Dockerfile


def test_both_targets_are_there_and_cpu_is_the_default() -> None:
    assert "cuda" in stages()
    assert list(stages())[-1] == "cpu"


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_the_images_variables_are_settings(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = environment(target)
    assert {name for name in given if name.startswith("MASS_")} <= SETTINGS
    settings = _settings(given, monkeypatch)
    assert (settings.host, settings.log_format) == ("0.0.0.0", "json")
    assert last(target, "EXPOSE").split() == [str(settings.port), str(GRPC_PORT)]


def _requirements(**given: str) -> subprocess.CompletedProcess[str]:
    """What `docker/requirements.py` prints for build arguments."""
    command, text = [sys.executable, str(DOCKER / "requirements.py")], (ROOT / "pyproject.toml").read_text()
    return subprocess.run(command, input=text, capture_output=True, text=True, env=given, check=False)


def test_the_models_that_verify_makes_become_a_store_of_texts(tmp_path: Path) -> None:
    command = [sys.executable, str(DOCKER / "text_models.py"), str(tmp_path / "models")]
    subprocess.run(command, check=True, timeout=120)
    names = ("guard", "domain")
    tasks = [TaskInput(name, tmp_path / "models" / name) for name in names]
    build(tmp_path / "models" / "pretrained", tasks, tmp_path / "store")
    engine = Engine.load(str(tmp_path / "store"), device="cpu")
    asked: list[Text] = ["word1 word2", ("word1", "word2")]
    found = engine.classify(asked, answer="each")
    assert [one.task for one in found] == [*names, *names]
    assert all(label.startswith(one.task) for one in found for label in one.labels)


def test_the_image_serves_texts_and_grpc_without_being_asked_to() -> None:
    arguments = dict(line.split("=", 1) for name, line in instructions() if name == "ARG" and "=" in line)
    extras = arguments["EXTRAS"].strip('"')
    printed = _requirements(EXTRAS=extras).stdout.splitlines()
    assert printed == [
        *PROJECT["project"]["dependencies"],
        *PROJECT["project"]["optional-dependencies"]["texts"],
        *PROJECT["project"]["optional-dependencies"]["grpc"],
    ]


def test_extras_are_followed_to_those_that_they_name() -> None:
    """`mass-serve[texts]` would be looked for in an index."""
    extras = PROJECT["project"]["optional-dependencies"]
    assert extras["words"] == ["mass-serve[texts]"], "one fact, under both names"
    printed = _requirements(EXTRAS="words tracing", EXTRA_PACKAGES="s3fs zstandard").stdout.splitlines()
    own = PROJECT["project"]["dependencies"]
    assert printed == [*own, *extras["texts"], *extras["tracing"], "s3fs", "zstandard"]
    developing = _requirements(EXTRAS="dev").stdout
    assert "mass-serve" not in developing
    assert all(one in developing for name in ("tracing", "signing", "texts", "docs") for one in extras[name])


def test_an_extra_that_there_is_not_ends_the_build() -> None:
    done = _requirements(EXTRAS="text")
    assert done.returncode == 1
    assert "there is no extra 'text', the extras are " in done.stderr


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_the_images_user_has_no_rights(target: str) -> None:
    assert last(target, "USER") == "1000:1000"


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_the_server_is_started_without_a_shell_in_between(target: str) -> None:
    assert json.loads(last(target, "ENTRYPOINT")) == ["mass-serve-entrypoint"]
    assert json.loads(last(target, "CMD")) == ["serve"]


def test_the_versions_agree() -> None:
    assert ("ARG", f"VERSION={__version__}") in stages()["cpu"]


def test_the_build_is_given_every_package() -> None:
    allowed = set(re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    packages = set(PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    linked = {
        link.resolve().name
        for package in packages
        for link in (ROOT / package).iterdir()
        if link.is_symlink()
    }
    assert linked >= {"kernels", "engine", "server", "cli"}
    assert packages | linked | {"pyproject.toml", PROJECT["project"]["readme"], "constraints.txt"} <= allowed
    assert all((ROOT / path).exists() for path in allowed)


# --- The health check


class _Probed(BaseHTTPRequestHandler):
    """Answers with the status that the test has set, and remembers the path."""

    status = 200
    paths: list[str] = []  # noqa: RUF012 - emptied by the fixture

    def do_GET(self) -> None:
        self.paths.append(self.path)
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Silent."""


@pytest.fixture
def probed() -> Iterator[HTTPServer]:
    _Probed.paths.clear()
    with HTTPServer(("127.0.0.1", 0), _Probed) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def _probe(port: int, **given: str) -> int:
    """The exit code of the image's health check, where every proxy is a dead end."""
    command = [sys.executable, *health_check()[1:]]
    variables = {**os.environ, "MASS_PORT": str(port), "http_proxy": "http://127.0.0.1:1", "no_proxy": ""}
    variables |= given
    return subprocess.run(command, env=variables, capture_output=True, timeout=30).returncode


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_health_check_tells_ready_from_not(
    probed: HTTPServer, status: int, healthy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Probed, "status", status)
    assert (_probe(probed.server_port) == 0) is healthy
    assert _Probed.paths == ["/readyz"]


def test_the_health_check_asks_by_https_where_that_is_served(probed: HTTPServer, tmp_path: Path) -> None:
    files = write_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert, files.key)
    probed.socket = context.wrap_socket(probed.socket, server_side=True)
    assert _probe(probed.server_port, MASS_TLS_CERT=str(files.cert)) == 0
    assert _Probed.paths == ["/readyz"]


def test_the_health_check_fails_where_nobody_listens(probed: HTTPServer) -> None:
    port = probed.server_port
    probed.server_close()
    assert _probe(port) != 0


# --- The entry point


@pytest.fixture
def entry_point(tmp_path: Path) -> Path:
    """The entry point, with a store folder of the test's and a `mass-serve` that tells how it was called."""
    (tmp_path / "store").mkdir()
    fake = tmp_path / "mass-serve"
    fake.write_text('#!/bin/sh\necho "$$ ${MASS_STORE-none} $*"\n')
    script = tmp_path / "entrypoint"
    script.write_text((DOCKER / "entrypoint.sh").read_text().replace("/store", str(tmp_path / "store")))
    for path in (fake, script):
        path.chmod(0o755)
    return script


def _enter(script: Path, *arguments: str, **variables: str) -> tuple[bool, str, str]:
    """Whether the server took over the process, the store it was told, and its arguments."""
    path = f"{script.parent}:{os.environ['PATH']}"
    child = subprocess.Popen([script, *arguments], env={"PATH": path, **variables}, stdout=subprocess.PIPE)
    output = child.communicate(timeout=30)[0].decode()
    process, store, rest = output.strip().split(" ", 2)
    return int(process) == child.pid, store, rest


def test_without_a_store_the_demo_is_served(entry_point: Path) -> None:
    assert _enter(entry_point, "serve", "--port", "9000") == (True, "none", "serve --port 9000")


def test_a_mounted_store_is_served_even_if_it_is_broken(entry_point: Path) -> None:
    store = entry_point.parent / "store"
    (store / "lost+found").mkdir()
    assert _enter(entry_point, "serve") == (True, str(store), "serve")


def test_a_store_that_is_named_wins(entry_point: Path) -> None:
    (entry_point.parent / "store" / "manifest.json").touch()
    assert _enter(entry_point, "serve", MASS_STORE="s3://bucket/store")[1] == "s3://bucket/store"


def test_other_commands_are_left_alone(entry_point: Path) -> None:
    (entry_point.parent / "store" / "manifest.json").touch()
    assert _enter(entry_point, "inspect", "/models/a b") == (True, "none", "inspect /models/a b")


# --- Compose


def _services(*overrides: str) -> dict[str, dict[str, Any]]:
    """The services, with the overrides laid over the server."""
    services: dict[str, dict[str, Any]] = {name: dict(value) for name, value in COMPOSE["services"].items()}
    for override in overrides:
        for key, value in OVERRIDES[override]["services"]["mass-serve"].items():
            old = services["mass-serve"].get(key)
            services["mass-serve"][key] = _laid_over(old, value)
    return services


def _laid_over(old: Any, new: Any) -> Any:
    """As Compose merges: mappings by key, lists end to end."""
    if isinstance(old, dict):
        return {**old, **{key: _laid_over(old.get(key), value) for key, value in new.items()}}
    return [*old, *new] if isinstance(old, list) else new


def _mounts(service: dict[str, Any]) -> dict[str, str]:
    """Source by target, with the defaults of the variables put in."""
    parts = [re.sub(r"\$\{\w+:-(.*?)\}", r"\1", mount).split(":") for mount in service.get("volumes", [])]
    return {part[-1 if part[-1] != "ro" else -2]: part[0] for part in parts}


@pytest.mark.parametrize("overrides", [(), ("cuda",), ("keys",), ("cuda", "keys")])
def test_the_servers_variables_are_settings(
    overrides: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = _services(*overrides)["mass-serve"]
    assert service["environment"].keys() <= SETTINGS
    target = service["build"]["target"]
    settings = _settings({**environment(target), **service["environment"]}, monkeypatch)
    assert seconds(service["stop_grace_period"]) > _longest_end(settings)
    assert service["ports"][0].endswith(f":{settings.port}")


@pytest.mark.parametrize("overrides", [(), ("cuda",)])
def test_the_build_is_one_that_the_dockerfile_knows(overrides: tuple[str, ...]) -> None:
    build = _services(*overrides)["mass-serve"]["build"]
    assert (DOCKER / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()
    assert build["target"] in stages()
    text = (ROOT / build["dockerfile"]).read_text()
    assert all(re.search(rf"^ARG {name}=", text, re.MULTILINE) for name in build["args"])


def test_ports_are_published_on_this_machine_only() -> None:
    ports = [port for service in COMPOSE["services"].values() for port in service["ports"]]
    assert len(ports) == len(COMPOSE["services"]) + 1, "gRPC has one beside HTTP"
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_every_service_is_confined_and_watched() -> None:
    for name, service in COMPOSE["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "healthcheck" in service or name == "mass-serve", name  # the server's is in its image


@pytest.mark.parametrize("overrides", [(), ("cuda",)])
def test_every_mount_has_a_source(overrides: tuple[str, ...]) -> None:
    volumes = {
        *COMPOSE["volumes"],
        *(name for override in overrides for name in OVERRIDES[override]["volumes"]),
    }
    for service in _services(*overrides).values():
        for source in _mounts(service).values():
            assert source in volumes or (DOCKER / source).is_dir(), source


def test_the_images_volumes_are_mounted() -> None:
    service = _services("cuda")["mass-serve"]
    declared = [arguments for name, arguments in stages()["cuda"] if name == "VOLUME"]
    assert set(declared) <= _mounts(service).keys()


def test_prometheus_scrapes_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _settings(
        {**environment("cpu"), **COMPOSE["services"]["mass-serve"]["environment"]}, monkeypatch
    )
    scraped = read_yaml(DOCKER / "prometheus" / "prometheus.yml")["scrape_configs"]
    targets = [target for job in scraped for group in job["static_configs"] for target in group["targets"]]
    assert targets == [f"mass-serve:{settings.port}"]


def test_prometheus_reads_the_configuration_that_is_mounted() -> None:
    prometheus = COMPOSE["services"]["prometheus"]
    flags = dict(flag.removeprefix("--").split("=", 1) for flag in prometheus["command"])
    mounts = _mounts(prometheus)
    folder, name = os.path.split(flags["config.file"])
    assert (DOCKER / mounts[folder] / name).is_file()
    assert mounts[flags["storage.tsdb.path"]] in COMPOSE["volumes"]


def test_grafana_has_the_dashboard_at_the_first_login() -> None:
    grafana = COMPOSE["services"]["grafana"]
    mounts = _mounts(grafana)
    provisioning = DOCKER / mounts["/etc/grafana/provisioning"]
    (source,) = [
        source
        for path in (provisioning / "datasources").iterdir()
        for source in read_yaml(path)["datasources"]
    ]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = [
        provider
        for path in (provisioning / "dashboards").iterdir()
        for provider in read_yaml(path)["providers"]
    ]
    folder, name = os.path.split(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert provider["options"]["path"] == folder
    assert (DOCKER / mounts[folder] / name).is_file()


# --- Documentation and the proof


def _documented() -> set[str]:
    """The names in the first cells of the README's tables."""
    cells = re.findall(r"^\| (`.*?) \|", (DOCKER / "README.md").read_text(), re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([A-Z_]+)`", cell)}


def test_the_variables_of_compose_are_documented() -> None:
    lines = [line for path in DOCKER.glob("compose*.yaml") for line in path.read_text().splitlines()]
    settings = [line for line in lines if not line.lstrip().startswith("#")]
    variables = {name for line in settings for name in re.findall(r"\$\{([A-Z_]+):[-?]", line)}
    assert "STORE" in variables
    assert variables <= _documented()


def test_the_build_arguments_are_documented() -> None:
    arguments = {arguments.split("=")[0] for name, arguments in instructions() if name == "ARG"}
    assert "BASE" in arguments
    assert arguments <= _documented()


@pytest.mark.parametrize(("script", "shell"), [("verify.sh", "bash"), ("entrypoint.sh", "sh")])
def test_the_scripts_can_be_run(script: str, shell: str) -> None:
    path = DOCKER / script
    assert os.access(path, os.X_OK)
    assert subprocess.run([shell, "-n", path], capture_output=True).stderr == b""


def test_the_proof_uses_settings_that_exist() -> None:
    text = (DOCKER / "verify.sh").read_text()
    assert set(re.findall(r"\bMASS_[A-Z_]+\b", text)) <= SETTINGS
