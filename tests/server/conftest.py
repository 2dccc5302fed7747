"""Real server processes on free ports of the loopback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from tests.model_store.models import Suite

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0


@dataclass(frozen=True)
class RunningServer:
    """A server process and a client for it."""

    process: subprocess.Popen[str]
    client: httpx.Client
    errors: IO[str]  # its standard error: a file, because a full pipe would stop the server

    @property
    def port(self) -> int:
        port = self.client.base_url.port
        assert port is not None
        return port

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while self.client.get("/readyz").status_code != 200:
            assert time.monotonic() < deadline, "the server did not become ready"
            time.sleep(0.02)

    def log(self) -> str:
        """Everything that was logged so far."""
        self.errors.seek(0)
        return self.errors.read()

    def metric(self, line: str) -> float:
        """The value of one sample, such as `mass_ready`."""
        for sample in self.client.get("/metrics").text.splitlines():
            name, _, value = sample.rpartition(" ")
            if name == line:
                return float(value)
        raise AssertionError(f"there is no sample {line}")


StartServer = Callable[..., RunningServer]


def running(
    load_seconds: float, settings: dict[str, object], variables: Mapping[str, str] | None = None
) -> AbstractContextManager[RunningServer]:
    """The fake server, stopped at the end however the test went; `variables` are added to its environment."""
    return _running(["tests.server.fake_server", str(load_seconds)], settings, variables)


def serving(
    store: Path, variables: Mapping[str, str] | None = None, **settings: object
) -> AbstractContextManager[RunningServer]:
    """`mass-serve serve` of a real store."""
    return _running(["mass_serve.cli", "serve", str(store)], settings, variables)


@contextmanager
def _running(
    module: list[str], settings: dict[str, object], variables: Mapping[str, str] | None
) -> Iterator[RunningServer]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MASS_")}
    settings = {"port": 0, "log_format": "json"} | settings
    environment.update({f"MASS_{name.upper()}": str(value) for name, value in settings.items()})
    environment.update(variables or {})
    with (
        TemporaryFile("w+") as errors,
        subprocess.Popen(
            [sys.executable, "-m", *module], cwd=ROOT, env=environment, text=True, stderr=errors
        ) as process,
    ):
        try:
            with httpx.Client(
                base_url=_address(process, errors), timeout=PATIENCE, trust_env=False
            ) as client:
                yield RunningServer(process, client, errors)
        finally:
            process.kill()


def _address(process: subprocess.Popen[str], errors: IO[str]) -> str:
    """The URL in the first line of a server's log."""
    deadline = time.monotonic() + PATIENCE
    while True:
        errors.seek(0)
        log = errors.read()
        if "\n" in log:
            address: str = json.loads(log.splitlines()[0])["url"]
            return address
        assert process.poll() is None, log
        assert time.monotonic() < deadline, "the server did not say where it listens"
        time.sleep(0.02)


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    """Starts servers with settings of a test's own."""
    with ExitStack() as stack:

        def start(load_seconds: float = 0.0, **settings: object) -> RunningServer:
            return stack.enter_context(running(load_seconds, settings))

        yield start


@pytest.fixture(scope="session")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    """Tiny fine-tuned models of three tasks, and their store beside them."""
    # Here, because transformers takes seconds to import, and most tests of the server need no model.
    from mass_serve.model_store.build import build
    from tests.model_store.models import make_suite

    folder = tmp_path_factory.mktemp("suite")
    made = make_suite(folder)
    build(made.pretrained, made.tasks, folder / "store")
    return made


@pytest.fixture
def store(suite: Suite, tmp_path: Path) -> Path:
    """A store of the suite's that a test may change."""
    return shutil.copytree(suite.pretrained.parent / "store", tmp_path / "store")


@pytest.fixture(scope="session")
def server() -> Iterator[RunningServer]:
    """One server with small limits for all tests that leave it as it was."""
    limits: dict[str, object] = {
        "max_body_bytes": 200_000,
        "max_pixels": 1_000_000,
        "max_images_per_request": 8,
        "queue_images": 64,
        "max_batch_images": 8,
        "log_level": "error",
    }
    with running(0.0, limits) as made:
        made.wait_until_ready()
        yield made
