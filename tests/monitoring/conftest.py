"""A real server under load and a real Prometheus that scrapes it, once for all tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.monitoring import material, traffic

PATIENCE = 30.0
LOAD_SECONDS = 10.0
# Often enough that a rate has many samples after a few seconds.
INTERVAL = "500ms"
CONFIGURED_INTERVAL = "15s"
CONFIGURED_TARGET = "mass-serve:8000"
SMALL_LIMITS = {
    "MASS_QUEUE_IMAGES": str(traffic.CROWD_IMAGES),
    "MASS_MAX_IMAGES_PER_REQUEST": str(traffic.CROWD_IMAGES),
    "MASS_PRIORS_HALF_LIFE": "100",
    "MASS_LOG_LEVEL": "error",
}


@dataclass(frozen=True)
class Watched:
    """A Prometheus that has scraped a server under load, and what the server said to its callers."""

    prometheus: httpx.Client
    server: httpx.Client
    statuses: Counter[int]

    @property
    def instance(self) -> str:
        """The server's name in the `instance` label."""
        return self.server.base_url.netloc.decode()

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of an answer of Prometheus' API; a query with an error fails the test."""
        answer = self.prometheus.get(f"/api/v1/{path}", params=parameters).json()
        assert answer["status"] == "success", (parameters, answer)
        return answer["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that an expression gives now, with the dashboard's variables filled in."""
        result: list[dict[str, Any]] = self.ask("query", query=self.filled(expression))["result"]
        return result

    def query_range(self, expression: str) -> list[dict[str, Any]]:
        """The series that a picture of the time of the load would show."""
        now = time.time()
        result: list[dict[str, Any]] = self.ask(
            "query_range",
            query=self.filled(expression),
            start=str(now - 2 * LOAD_SECONDS),
            end=str(now),
            step="1",
        )["result"]
        return result

    def filled(self, expression: str) -> str:
        """As Grafana sends it: all servers, and a window of a short picture."""
        window = f"{2 * LOAD_SECONDS:.0f}s"
        return expression.replace("$instance", self.instance).replace("$__rate_interval", window)


@pytest.fixture(scope="session")
def promtool() -> str:
    """The path of Prometheus' checker."""
    return _program("promtool")


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Load first, then questions: every test asks about the same few seconds."""
    program = _program("prometheus")
    port, prometheus_port = _free_port(), _free_port()
    folder = tmp_path_factory.mktemp("prometheus")
    store = traffic.discerning_store(tmp_path_factory.mktemp("store") / "store")
    keys = folder / "keys"
    keys.write_text(traffic.BOUNDED, encoding="utf-8")
    command = [sys.executable, "-m", "mass_serve.cli", "serve", str(store), "--port", str(port)]
    with (
        _process([*command, "--admin-keys-file", str(keys), "--shadow-share", "0.1"]),
        _process(_prometheus_command(program, folder, port, prometheus_port)),
        _client(port) as server,
        _client(prometheus_port) as prometheus,
    ):
        _wait_for(lambda: server.get("/readyz").status_code == httpx.codes.OK)
        _wait_for(lambda: prometheus.get("/-/ready").status_code == httpx.codes.OK)
        statuses = traffic.send_mixed(str(server.base_url), LOAD_SECONDS)
        watched = Watched(prometheus, server, statuses)
        _wait_for(lambda: _all_evaluated(watched))
        yield watched


def _program(name: str) -> str:
    path = shutil.which(name)
    assert path is not None, "a test that needs Prometheus is marked as one"
    return path


def _prometheus_command(program: str, folder: Path, port: int, prometheus_port: int) -> list[str]:
    """Prometheus with the configuration that is delivered, only faster and with another target."""
    config = (material.PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8")
    assert CONFIGURED_INTERVAL in config
    assert CONFIGURED_TARGET in config
    config = config.replace(CONFIGURED_INTERVAL, INTERVAL).replace(CONFIGURED_TARGET, f"127.0.0.1:{port}")
    (folder / "prometheus.yml").write_text(config, encoding="utf-8")
    shutil.copytree(material.PROMETHEUS / "rules", folder / "rules")
    return [
        program,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{prometheus_port}",
        "--log.level=error",
    ]


def _all_evaluated(watched: Watched) -> bool:
    """Whether the rules were evaluated after the load, those that read recorded series too."""
    series = "mass_batch_size_count"
    scraped, counted = watched.query(series), watched.server.get("/metrics").text
    return (
        bool(scraped) and f"{series} {float(scraped[0]['value'][1])}" in counted and _groups_are_done(watched)
    )


def _groups_are_done(watched: Watched) -> bool:
    groups = watched.ask("rules")["groups"]
    return all(rule["health"] == "ok" for group in groups for rule in group["rules"])


@contextmanager
def _process(command: list[str]) -> Iterator[None]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MASS_")}
    with subprocess.Popen(command, cwd=material.ROOT, env=environment | SMALL_LIMITS) as process:
        try:
            yield
        finally:
            process.kill()


def _client(port: int) -> httpx.Client:
    return httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE, trust_env=False)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not _holds(condition):
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.1)


def _holds(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except httpx.TransportError:
        return False
